import json
import os
import pickle
import shutil

import pytest
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments
from sr_transformers.training.checkpoints import (
    COMPLETE,
    best_beside,
    checkpoints,
    last_complete_checkpoint,
    mark_complete,
    verify_checkpoint,
)


def trainer_for(data, folder, **more):
    config = LSRMConfig(vocab_size=data.vocab_size, hidden_size=16, num_hidden_layers=1, max_position_embeddings=8)
    settings = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "eval_strategy": "steps", "save_strategy": "steps"}
    arguments = LSRMTrainingArguments(
        output_dir=str(folder), disable_tqdm=True, precision="fp32", **{**settings, **more}
    )  # fmt: skip
    return LSRMTrainer(
        LSRMForCausalLM(config),
        arguments,
        train_dataset=data.train_dataset(),
        eval_dataset=data.eval_dataset("validation"),
    )


@pytest.fixture(scope="module")
def saved(markov_prepared, tmp_path_factory):
    """A run with the checkpoints of steps 2 and 4; step 4 has validated best."""
    folder = tmp_path_factory.mktemp("saved")
    trainer_for(markov_prepared, folder).train()
    return folder


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors", "config.json")


def test_complete_names_every_file_with_its_size(run):
    listed = json.loads((run / "checkpoint-4" / COMPLETE).read_text())
    there = {path.name: path.stat().st_size for path in (run / "checkpoint-4").iterdir() if path.name != COMPLETE}
    assert {name: one["bytes"] for name, one in listed.items()} == there
    assert set(FILES) <= set(there)
    verify_checkpoint(run / "checkpoint-4")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def exploit(path):
    class Exploit:
        def __reduce__(self):
            return os.mkdir, (str(path.parent.parent / "ran"),)

    path.write_bytes(pickle.dumps(Exploit()))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "was changed after it was written"),
        (flip, "was changed after it was written"),
        (exploit, "was changed after it was written"),
    ],
    ids=["missing", "cut", "flipped", "malicious"],
)
def test_a_changed_checkpoint_is_refused_by_the_name_of_the_file(run, markov_prepared, name, damage, what):
    damage(run / "checkpoint-4" / name)
    with pytest.raises(ValueError, match=rf"checkpoint-4/{name} {what}. The run cannot go on .* remove the whole of"):
        trainer_for(markov_prepared, run, max_steps=6).train(resume_from_checkpoint=True)
    assert not (run / "ran").exists()


def test_a_file_that_was_put_there_is_refused(run):
    exploit(run / "checkpoint-4" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin was put there after the checkpoint was written"):
        verify_checkpoint(run / "checkpoint-4")
    (run / "checkpoint-4" / "pytorch_model.bin").rename(run / "checkpoint-4" / ".hidden")
    verify_checkpoint(run / "checkpoint-4")


@pytest.mark.parametrize("content", ["", "[]", '{"optimizer.pt": 3}', "\x00"])
def test_a_damaged_list_is_refused(run, content):
    (run / "checkpoint-4" / COMPLETE).write_text(content)
    with pytest.raises(ValueError, match="COMPLETE is damaged"):
        verify_checkpoint(run / "checkpoint-4")


def test_the_checkpoint_that_validated_best_is_needed_too(run, markov_prepared):
    shutil.rmtree(run)
    trainer_for(markov_prepared, run, metric_for_best_model="hr@50").train()  # always 1: the first stays the best
    assert best_beside(run / "checkpoint-4") == str(run / "checkpoint-2")
    flip(run / "checkpoint-2" / "model.safetensors")
    with pytest.raises(ValueError, match=r"checkpoint-2/model.safetensors was changed"):
        trainer_for(markov_prepared, run, max_steps=6).train(resume_from_checkpoint=str(run / "checkpoint-4"))
    shutil.rmtree(run / "checkpoint-2")
    with pytest.raises(FileNotFoundError, match=r"checkpoint-2 is missing, and .*checkpoint-4 needs it"):
        trainer_for(markov_prepared, run, max_steps=6).train(resume_from_checkpoint=str(run / "checkpoint-4"))


def test_a_moved_run_still_ends_with_the_weights_that_validated_best(run, markov_prepared):
    """hr@50 of 30 items is always 1: the first evaluation stays the best, and its checkpoint has to be found."""
    old, new = run.parent / "old", run.parent / "new"
    trainer_for(markov_prepared, old, metric_for_best_model="hr@50").train()
    old.rename(new)
    trainer = trainer_for(markov_prepared, new, metric_for_best_model="hr@50", max_steps=6)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.best_model_checkpoint == str(new / "checkpoint-2")
    best = LSRMForCausalLM.from_pretrained(new / "checkpoint-2").state_dict()
    assert all(bool((best[name] == value).all()) for name, value in trainer.model.state_dict().items())


def test_a_run_that_was_stopped_after_its_last_checkpoint_makes_no_step_more(run, markov_prepared):
    """The last step lies within an epoch, where transformers would begin another."""
    trainer = trainer_for(markov_prepared, run)
    assert trainer.args.max_steps < trainer.sampler.num_steps
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4
    whole = LSRMForCausalLM.from_pretrained(run / "checkpoint-4").state_dict()
    assert all(torch.equal(whole[name], one) for name, one in trainer.model.state_dict().items())


def test_no_checkpoint_is_said(run, markov_prepared, tmp_path):
    with pytest.raises(FileNotFoundError, match="nope is no complete checkpoint of this library"):
        trainer_for(markov_prepared, run).train(resume_from_checkpoint=str(run / "nope"))
    with pytest.raises(FileNotFoundError, match="empty has no complete checkpoint to go on from"):
        trainer_for(markov_prepared, tmp_path / "empty").train(resume_from_checkpoint=True)


def test_only_whole_checkpoints_are_resumed_from(tmp_path):
    assert last_complete_checkpoint(tmp_path) is None
    for step, whole in ((5, True), (10, True), (100, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            mark_complete(folder)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_what_is_merely_called_like_a_checkpoint_is_none(run, markov_prepared):
    (run / "checkpoint-99").write_text("a file")
    (run / "checkpoint-best").mkdir()
    assert [path.name for path in checkpoints(run)] == ["checkpoint-4", "checkpoint-2"]
    trainer_for(markov_prepared, run, max_steps=8).train(resume_from_checkpoint=True)  # old checkpoints are removed
    assert {path.name for path in run.glob("checkpoint-*")} == {
        "checkpoint-99", "checkpoint-best", "checkpoint-6", "checkpoint-8"
    }  # fmt: skip
