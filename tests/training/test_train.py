import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sr_transformers import Recipe, RunRecord, train
from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.evaluation.weights import COMPLETE
from sr_transformers.locking import LOCK
from sr_transformers.training.train import fitted


def recipe(**training):
    model = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 32, "disable_tqdm": True, "precision": "fp32"}
    return Recipe("tiny", model, {**settings, **training})


@pytest.fixture(scope="module")
def finished(markov_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    return folder, train(recipe(), markov_prepared, folder)


def test_a_run_leaves_a_folder_that_auto_classes_load(finished, markov_prepared):
    folder, _record = finished
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer) == markov_prepared.vocab_size
    history = tokenizer.convert_ids_to_tokens(markov_prepared.items(0, 6).tolist())
    encoded = tokenizer([history], is_split_into_words=True, return_tensors="pt")
    generated = model.generate(**encoded)
    assert generated.shape == (1, 8)  # to the end of the window
    assert (generated[0, 6:] >= 2).all()  # no special token


def test_the_record_counts_what_was_done(finished, markov_prepared):
    _, record = finished
    data = markov_prepared
    pairs = int((data.train_lengths - 1).clip(0).sum())
    assert record.num_non_embedding_parameters == 12 * 16**2
    assert record.num_train_interactions == int(data.train_lengths.sum())
    assert record.num_interactions_seen == 2 * pairs
    assert record.training_flops == 6 * 12 * 16**2 * 2 * pairs
    assert record.head_flops == 6 * 16 * data.vocab_size * 2 * pairs
    assert record.epochs == 2
    model = AutoModelForCausalLM.from_pretrained(finished[0])
    assert sum(record.parameters.values()) == model.num_parameters()


def test_the_record_is_read_back_as_it_was(finished):
    folder, record = finished
    assert RunRecord.load(folder) == record


def test_the_model_is_reported_beside_the_baselines(finished, markov_prepared):
    _, record = finished
    names = [one["model"] for one in record.reports]
    assert names == ["lsrm tiny", *(one.name for one in baselines(markov_prepared))]
    assert names[-1] == "mix"
    model, *_, mix = (one["metrics"]["hr@10"] for one in record.reports)
    assert record.reports[0]["against_mix"]["hr@10"]["difference"] == pytest.approx(model - mix)
    assert len({json.dumps(one["protocol"]) for one in record.reports}) == 1
    best = next(entry for entry in record.history if entry.get("step") == record.best_step and "eval_loss" in entry)
    assert record.validation["loss"] == best["eval_loss"]


def test_the_kept_weights_are_those_that_validated_best(finished, markov_prepared):
    from sr_transformers import ModelScorer, evaluate

    folder, record = finished
    scorer = ModelScorer(AutoModelForCausalLM.from_pretrained(folder))
    metrics = evaluate(scorer, markov_prepared, "validation", ks=(1, 5, 10, 50))["metrics"]
    assert metrics["loss"] == pytest.approx(record.validation["loss"], abs=1e-6)
    assert metrics["ndcg@10"] == pytest.approx(record.validation["ndcg@10"], abs=1e-9)


def test_a_finished_run_is_not_overwritten(finished, markov_prepared):
    with pytest.raises(FileExistsError, match="holds a finished run"):
        train(recipe(), markov_prepared, finished[0])


def test_an_interrupted_run_goes_on_only_with_the_same_settings(markov_prepared, tmp_path):
    """Its losses are logged over steps before and after the checkpoint too."""
    from transformers import TrainerCallback

    class Die(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            if state.epoch and state.epoch >= 1:
                raise KeyboardInterrupt

    whole = train(recipe(), markov_prepared, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), markov_prepared, tmp_path / "part", callbacks=[Die()])
    # a checkpoint that was being written when the run died
    (tmp_path / "part" / "checkpoint-9999").mkdir()
    with pytest.raises(FileExistsError, match=r"other settings .*: learning_rate is [\d.e-]+ and 0.5\. Choose another"):
        train(recipe(learning_rate=0.5), markov_prepared, tmp_path / "part")
    with pytest.raises(FileExistsError, match=r"other settings .*: rows of an update is 32 and 16"):
        train(recipe(per_device_train_batch_size=16), markov_prepared, tmp_path / "part")
    resumed = train(recipe(), markov_prepared, tmp_path / "part")
    assert resumed.reports[0]["metrics"] == whole.reports[0]["metrics"]
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [h for h in resumed.history if "loss" in h] == [h for h in whole.history if "loss" in h]
    assert (tmp_path / "part" / f"checkpoint-{resumed.steps}" / COMPLETE).exists()


def test_an_update_of_as_many_rows_is_the_same_run(markov_prepared, tmp_path):
    whole = train(recipe(), markov_prepared, tmp_path / "run")
    last = tmp_path / "run" / f"checkpoint-{whole.steps}"
    for path in (tmp_path / "run").iterdir():
        if path.is_file() and path.name != "settings.json":
            path.unlink()
    shutil.rmtree(last)
    halves = recipe(per_device_train_batch_size=16, gradient_accumulation_steps=2)
    resumed = train(halves, markov_prepared, tmp_path / "run")
    for key in ("loss", "eval_loss"):
        one, other = ([entry[key] for entry in run.history if key in entry] for run in (whole, resumed))
        assert other == pytest.approx(one, abs=1e-5)
    # Damaged settings are other settings.
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / "settings.json").write_text("{")
    with pytest.raises(FileExistsError, match=r"other settings .*: the stored ones are damaged"):
        train(halves, markov_prepared, tmp_path / "run")


def test_the_backend_and_the_number_of_processes_are_settings(finished):
    folder, record = finished
    settings = json.loads((folder / "settings.json").read_text())
    assert record.recipe["model"]["attn_implementation"] == settings["model"]["attn_implementation"] == "sdpa"
    assert record.recipe["training"]["processes"] == settings["training"]["processes"] == 1


def test_the_saved_model_is_ready_for_use(finished):
    folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    assert config["use_cache"] is True
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 8


def test_a_folder_of_something_else_is_left_alone(markov_prepared, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty and holds no run of ours"):
        train(recipe(), markov_prepared, tmp_path)


def test_a_second_process_is_refused_and_the_first_goes_on(markov_prepared, tmp_path):
    script = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        from test_train import recipe
        from transformers import TrainerCallback
        from sr_transformers import train

        class Wait(TrainerCallback):
            def on_train_begin(self, *args, **kwargs):
                print("training", flush=True)
                sys.stdin.readline()

        train(recipe(num_train_epochs=1), sys.argv[2], sys.argv[3], callbacks=[Wait()], with_baselines=False)
        """
    )
    output = tmp_path / "run"
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(markov_prepared.path), str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert "training\n" in iter(first.stdout.readline, "")
        before = {path: path.read_bytes() for path in output.iterdir()}
        with pytest.raises(
            BlockingIOError, match=rf"run is in use: process {first.pid} .* choose another output folder"
        ):
            train(recipe(num_train_epochs=1), markov_prepared, output)
        assert {path: path.read_bytes() for path in output.iterdir()} == before
        first.communicate("go on\n")
    assert first.returncode == 0
    assert RunRecord.load(output).epochs == 1
    assert not (output / LOCK).exists()


@pytest.mark.parametrize(
    "late",
    [
        {"optim": "sgd", "optim_args": "momentum=open"},  # found by transformers when training begins
        {"report_to": "sesame"},
        {"row_width": 3},
    ],
    ids=lambda late: list(late)[-1],
)
def test_a_value_that_is_refused_late_leaves_nothing_and_blocks_nothing(markov_prepared, tmp_path, late):
    with pytest.raises((ValueError, TypeError)):
        train(recipe(**late), markov_prepared, tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []
    record = train(recipe(num_train_epochs=1), markov_prepared, tmp_path / "deep" / "run", with_baselines=False)
    assert record.epochs == 1


def test_settings_without_a_whole_checkpoint_block_nothing(markov_prepared, tmp_path):
    """A killed run leaves them; it has saved nothing that could be gone on from."""
    output = tmp_path / "run"
    (output / "checkpoint-3").mkdir(parents=True)  # was being written
    (output / "settings.json").write_text("{}")
    record = train(recipe(num_train_epochs=1), markov_prepared, output, with_baselines=False)
    settings = json.loads((output / "settings.json").read_text())
    assert settings["training"]["num_train_epochs"] == record.epochs == 1


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_who_may_read_what_a_run_writes_is_for_the_umask_to_say(markov_prepared, readable_log, tmp_path, umask):
    before = os.umask(umask)
    try:
        train(recipe(num_train_epochs=1), markov_prepared, tmp_path / "run", with_baselines=False)
        prepare(readable_log, tmp_path / "data")
    finally:
        os.umask(before)
    for path in [*tmp_path.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_as_many_negatives_as_items_are_refused(markov_prepared, tmp_path):
    with pytest.raises(ValueError, match="num_negatives is 30, but the log has 30 items: use 0"):
        train(recipe(num_negatives=30), markov_prepared, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_as_it_stands_has_the_best_weights_of_its_checkpoints_and_takes_no_step(markov_prepared, tmp_path):
    # Adam far too fast: what it has validated best are not the last weights.
    fast = recipe(num_train_epochs=4, learning_rate=0.3, lr_scheduler_type="constant", patience=9)
    with fitted(fast, markov_prepared, tmp_path / "run") as run:
        weights = {name: value.clone() for name, value in run.trainer.model.state_dict().items()}
        steps, best, seconds = run.trainer.state.global_step, run.trainer.state.best_global_step, run.seconds
    assert not (tmp_path / "run" / "run.json").exists()  # nobody has looked at the test targets
    with fitted(fast, markov_prepared, tmp_path / "run", as_it_stands=True) as run:
        assert all(torch.equal(value, weights[name]) for name, value in run.trainer.model.state_dict().items())
        record = run.finish(with_baselines=False)
    assert (record.steps, record.best_step, record.epochs) == (steps, best, 4)
    assert record.seconds > 0.5 * seconds  # training was long ago, and counts
    assert [one["model"] for one in record.reports] == ["lsrm tiny"]
    assert RunRecord.load(tmp_path / "run") == record


def test_what_has_no_checkpoint_cannot_be_taken_as_it_stands(markov_prepared, tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="has no complete checkpoint to take as it stands"),
        fitted(recipe(), markov_prepared, tmp_path / "run", as_it_stands=True),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_never_validated_has_no_best_weights(markov_prepared, tmp_path):
    plain = recipe(eval_strategy="no", load_best_model_at_end=False)
    with fitted(plain, markov_prepared, tmp_path / "run"):
        pass
    with (
        pytest.raises(FileNotFoundError, match="has no weights that validated best"),
        fitted(plain, markov_prepared, tmp_path / "run", as_it_stands=True),
    ):
        pass
