"""An item table divided over two processes, alone and with a copy beside it: the numbers of one process, in a run that
may be killed, from folders that anybody loads."""

import shutil

import pytest
from launches import (
    ROOT,
    assert_same_curves,
    assert_same_end,
    curves,
    left_at,
    recipe,
    run,
    stored,
    train_all,
    until_killed,
)
from torch.distributed.checkpoint import FileSystemReader
from transformers import AutoModelForCausalLM

from sr_transformers import ModelScorer, Recipe, RunRecord, evaluate, train

PARTS = ("divided_model", "divided_optimizer")
MOMENTS = "optimizer.state.model.embed_tokens.weight.exp_avg"
TABLES = {"tie_word_embeddings": False, "history": ["items"], "head": "scaled"}
SHORT = {
    "num_train_epochs": 2,
    "switch_optimizer": False,
    "optim": "adamw_torch",
    "include_num_input_tokens_seen": "all",
}
pytestmark = pytest.mark.slow


def launch(processes):
    return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]


def test_a_divided_run_is_that_of_one_process_and_survives_being_killed(odd_log, tmp_path):
    with_dropout = recipe(tmp_path, "dropout", dropout=0.1, optimizer="muon")
    command = [*launch(2), str(ROOT / "recipes/train.py"), str(with_dropout), "--data", str(odd_log.path)]
    command += ["--output", str(tmp_path / "killed"), "--tp_size", "2"]
    until_killed(command, tmp_path / "killed/checkpoint-68/divided_model")
    assert not (tmp_path / "killed/checkpoint-68/COMPLETE").exists()
    shutil.copytree(tmp_path / "killed", tmp_path / "early", ignore=shutil.ignore_patterns("checkpoint-[56]*"))
    run(command)  # to the end

    for name, model, more in (("one", {}, {}), ("one tables", TABLES, SHORT)):
        train(Recipe.load(recipe(tmp_path, name, model=model, **more)), odd_log, tmp_path / name, with_baselines=False)
    both = {"gradient_accumulation_steps": 2, "activation_checkpointing": True}
    four = [
        ("plain", recipe(tmp_path, "plain", rows=6, tp_size=2), {}),
        ("both", recipe(tmp_path, "both", rows=3, tp_size=2, **both), {}),
        ("tables", recipe(tmp_path, "tables", rows=6, model=TABLES, tp_size=2, **SHORT), {}),
        ("sampled", recipe(tmp_path, "sampled", dropout=0.1, rows=6, num_negatives=5, tp_size=2, **SHORT), {}),
        ("counts", recipe(tmp_path, "counts", rows=6, model={"history": ["mix"]}, tp_size=2), {}),
        ("three", recipe(tmp_path, "three", tp_size=3), {}),
    ]  # fmt: skip
    notes = train_all(launch(4), tmp_path, odd_log, 4, four)
    refused = {
        "counts": "the counts of mix are not",
        "three": "groups of 3 processes, and there are 4 processes",
    }
    for note in notes:
        assert {name for name, one in note.items() if one["error"]} == set(refused), note
        assert all(text in note[name]["error"] for name, text in refused.items())

    for name in ("plain", "both"):
        assert_same_curves(tmp_path / "one", tmp_path / name, 1e-5)
    norms = curves(tmp_path / "one")["grad_norm"]
    assert min(norms) < 1.0 < max(norms)  # some are clipped
    assert_near(tmp_path / "one tables", tmp_path / "tables", 34)
    # Two processes rank the same half of the users together, and no copy waits for the other.
    rounds = len(curves(tmp_path / "plain")["eval_loss"]) + 1  # and the test targets
    assert [note["plain"]["scored"] for note in notes] == [
        part * rounds for part in ([50, 50, 1], [50, 50]) for _ in "ab"
    ]
    table = 33 * 16 * 4
    whole = RunRecord.load(tmp_path / "one").hardware["parameter_bytes"][0]
    found = RunRecord.load(tmp_path / "plain").hardware["parameter_bytes"]
    assert found == [whole - table + rows * 64 for rows in (17, 16, 17, 16)]
    check_folder(tmp_path, odd_log)

    left_at(tmp_path / "plain", tmp_path / "two", 51)
    left_at(tmp_path / "one", tmp_path / "other", 51)
    shutil.copy(tmp_path / "two/settings.json", tmp_path / "other")
    dropout = recipe(tmp_path, "dropout", dropout=0.1, optimizer="muon", tp_size=2)
    plain = recipe(tmp_path, "plain", tp_size=2)
    two = [("whole", dropout, {}), ("early", dropout, {}), ("two", plain, {}), ("other", plain, {})]
    given = {"model": TABLES, "max_steps": 17, **SHORT}
    two.append(("given", recipe(tmp_path, "given", tp_size=2, **given), {}, ("model", str(tmp_path / "tables"))))
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "tables")
    one = Recipe.load(recipe(tmp_path, "one given", **given))
    train(one, odd_log, tmp_path / "one given", model=start, origin={"name": "given"}, with_baselines=False)
    for note in train_all(launch(2), tmp_path, odd_log, 2, two):
        assert "written with a whole item table" in note.pop("other")["error"]
        assert [one["error"] for one in note.values()] == [None] * 4
    # Killed while it wrote a checkpoint after the switch, or gone before the switch: nothing of it can be seen.
    assert RunRecord.load(tmp_path / "whole").switched_at == 51
    assert_same_end(tmp_path / "whole", tmp_path / "killed", tmp_path, PARTS)
    assert_same_end(tmp_path / "whole", tmp_path / "early", tmp_path, PARTS)
    # Begun on four processes, ended on two; and whole weights that were given, which are divided then.
    assert_same_curves(tmp_path / "one", tmp_path / "two", 1e-5)
    assert_near(tmp_path / "one given", tmp_path / "given", 17)


def assert_near(one, other, steps):
    """The same curves and counts."""
    first, second = curves(one), curves(other)
    assert len(first["loss"]) == steps
    for key, values in first.items():
        assert second[key] == pytest.approx(values, abs=1e-5)
    first, second = (RunRecord.load(run).history[-1] for run in (one, other))
    assert second["num_input_tokens_seen"] == first["num_input_tokens_seen"] > 0
    assert second["total_flos"] == first["total_flos"] > 0


def check_folder(folder, data):
    """What is left is what one process leaves, with the tables in a file of their own."""
    names = [{path.name for path in (folder / run).iterdir()} for run in ("one", "plain")]
    files = {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert names[1] == names[0] - {"model.safetensors"} | files
    assert (folder / "plain/config.json").read_text() == (folder / "one/config.json").read_text()
    for name in ("plain", "tables"):
        model = AutoModelForCausalLM.from_pretrained(folder / name)
        recorded = RunRecord.load(folder / name).reports[0]["metrics"]["loss"]
        assert evaluate(ModelScorer(model), data)["metrics"]["loss"] == pytest.approx(recorded, abs=1e-5)
    weights, optimizer = (stored(folder / "plain/checkpoint-17", part, folder) for part in PARTS)
    assert weights["model.embed_tokens.weight"].shape == (33, 16)
    assert "lm_head.weight" not in weights
    moments = optimizer["optimizer"][MOMENTS.removeprefix("optimizer.")]
    assert moments.shape == (33, 16)
    index = FileSystemReader(folder / "plain/checkpoint-17/divided_optimizer").read_metadata()
    written = {key.offset: str(one.relative_path) for key, one in index.storage_data.items() if key.fqn == MOMENTS}
    assert len(written) == len(set(written.values())) == 2  # each part by a process of its own
