"""Weights divided over two and three processes: the numbers of one process, from folders that say nothing of it."""

import functools
import shutil

import pytest
from launches import (
    ROOT,
    assert_same_curves,
    assert_same_end,
    curves,
    left_at,
    recipe,
    stored,
    train_all,
    until_killed,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from sr_transformers import ModelScorer, Recipe, RunRecord, evaluate, train
from sr_transformers.training.checkpoints import verify_checkpoint

LAUNCH = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/fsdp2_cpu.yaml"),
          "--main_process_port", "0"]  # fmt: skip
PARTS = ("pytorch_model_fsdp_0", "optimizer_0")
SHARDED = {"ACCELERATE_USE_FSDP": "true"}
WHOLE = {"ACCELERATE_USE_FSDP": "false"}
with_muon = functools.partial(recipe, optimizer="muon")
pytestmark = pytest.mark.slow


def test_sharded_runs_are_those_of_one_process_and_survive_being_killed(odd_log, tmp_path):
    with_dropout = with_muon(tmp_path, "dropout", dropout=0.1, rows=6)
    command = [*LAUNCH, str(ROOT / "recipes/train.py"), str(with_dropout), "--data", str(odd_log.path), "--output"]
    until_killed([*command, str(tmp_path / "killed")], tmp_path / "killed/checkpoint-68/pytorch_model_fsdp_0")
    assert not (tmp_path / "killed/checkpoint-68/COMPLETE").exists()
    left_at(tmp_path / "killed", tmp_path / "early", 34)
    train(Recipe.load(with_muon(tmp_path, "one")), odd_log, tmp_path / "one", with_baselines=False)

    plain = with_muon(tmp_path, "plain", rows=6, fsdp=True)
    twice = {"gradient_accumulation_steps": 2, "activation_checkpointing": True}
    both = with_muon(tmp_path, "both", rows=3, **twice)
    jobs = [
        ("whole", with_dropout, SHARDED),
        ("killed", with_dropout, SHARDED),
        ("early", with_dropout, SHARDED),
        ("plain", plain, WHOLE),  # the argument asks
        ("both", both, SHARDED),  # the environment asks
        ("one file", both, {"FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}),
        (
            "compiled",
            with_muon(tmp_path, "compiled", rows=6, torch_compile=True),
            {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"},
        ),
        ("copies", both, WHOLE),
        ("compiled copies", with_muon(tmp_path, "graph", rows=3, torch_compile=True, **twice), WHOLE),
    ]
    notes = train_all(LAUNCH, tmp_path, odd_log, 2, jobs)
    refused = {"one file": "SHARDED_STATE_DICT", "compiled": "torch_compile"}
    for note in notes:
        assert {name for name, one in note.items() if one["error"]} == set(refused)
        assert all(text in note[name]["error"] for name, text in refused.items())

    # Killed while it wrote a checkpoint after the switch, or gone before the switch: nothing of it can be seen.
    assert RunRecord.load(tmp_path / "whole").switched_at == 51
    assert_same_end(tmp_path / "whole", tmp_path / "killed", tmp_path, PARTS)
    assert_same_end(tmp_path / "whole", tmp_path / "early", tmp_path, PARTS)

    # Half of the weights each, half of the users each (the second process computes once more than it has users for).
    for name in ("plain", "both", "copies", "compiled copies"):
        assert_same_curves(tmp_path / "one", tmp_path / name)
    total = RunRecord.load(tmp_path / "one").hardware["parameter_bytes"][0]
    halves = RunRecord.load(tmp_path / "plain").hardware["parameter_bytes"]
    assert halves == pytest.approx([total / 2] * 2, rel=0.01)
    assert sum(halves) == total
    assert RunRecord.load(tmp_path / "copies").hardware["parameter_bytes"] == [total, total]
    rounds = len(curves(tmp_path / "plain")["eval_loss"]) + 1  # and the test targets
    assert notes[0]["plain"]["scored"] == [50, 50, 1] * rounds
    assert notes[1]["plain"]["scored"] == [50, 50, 1] * rounds  # the 1 is nobody
    assert notes[1]["copies"]["scored"] == [50, 50] * rounds
    assert notes[0]["plain"]["called"] == notes[0]["both"]["called"] == 0  # the weight that FSDP has gathered is read

    check_folder(tmp_path, odd_log)
    resume_on_three(tmp_path, odd_log)


def check_folder(folder, data):
    """What is left is what one process leaves."""
    names = [{path.name for path in (folder / run).iterdir()} for run in ("one", "plain")]
    assert names[0] == names[1]
    assert "modeling_lsrm.py" in names[1]
    model = AutoModelForCausalLM.from_pretrained(folder / "plain")
    assert type(model).__name__ == "LSRMForCausalLM"
    assert len(AutoTokenizer.from_pretrained(folder / "plain")) == model.config.vocab_size == data.vocab_size
    recorded = RunRecord.load(folder / "plain").reports[0]["metrics"]["loss"]
    assert evaluate(ModelScorer(model), data)["metrics"]["loss"] == pytest.approx(recorded, abs=1e-5)
    assert (folder / "plain/config.json").read_text() == (folder / "one/config.json").read_text()
    # A table that head and embedding share is written once, and COMPLETE knows the index of the parts too.
    weights = stored(folder / "plain/checkpoint-17", "pytorch_model_fsdp_0", folder)["model"]
    assert "model.embed_tokens.weight" in weights
    assert "lm_head.weight" not in weights
    verify_checkpoint(folder / "early/checkpoint-17")
    (folder / "early/checkpoint-17/pytorch_model_fsdp_0/.metadata").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\.metadata was changed"):
        verify_checkpoint(folder / "early/checkpoint-17")


def resume_on_three(folder, data):
    """A run that died at its switch goes on; one of whole weights does not go on with divided ones."""
    left_at(folder / "plain", folder / "three", 51)
    left_at(folder / "one", folder / "other", 51)
    shutil.copy(folder / "plain/settings.json", folder / "other")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3"]
    path = with_muon(folder, "plain", rows=4, fsdp=True)
    notes = train_all(launch, folder, data, 3, [("three", path, {}), ("other", path, {})])
    assert [note["three"]["error"] for note in notes] == [None] * 3
    assert all("holds whole weights" in note["other"]["error"] for note in notes)
    assert len(RunRecord.load(folder / "three").hardware["parameter_bytes"]) == 3
    assert_same_curves(folder / "one", folder / "three")


def test_zero_2_is_one_process_too(odd_log, tmp_path):
    pytest.importorskip("deepspeed", reason="on CPUs it compiles its communication when it first runs")

    def zero(name, stage, **more):
        auto = (
            "train_micro_batch_size_per_gpu",
            "train_batch_size",
            "gradient_accumulation_steps",
            "gradient_clipping",
        )
        config = {"zero_optimization": {"stage": stage}, **dict.fromkeys(auto, "auto")}
        settings = {"rows": 6, "max_steps": 20, "switch_optimizer": False, "deepspeed": config, **more}
        path = recipe(tmp_path, name, **settings)
        return name, path, {}

    one = Recipe.load(recipe(tmp_path, "one", max_steps=20, switch_optimizer=False))
    train(one, odd_log, tmp_path / "one", with_baselines=False)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    jobs = [
        zero("two", 2),
        zero("both", 2, rows=3, gradient_accumulation_steps=2, activation_checkpointing=True),
        zero("compiled", 2, torch_compile=True),
        zero("three", 3),
        zero("switch", 2, switch_optimizer=True),
    ]
    notes = train_all(launch, tmp_path, odd_log, 2, jobs)
    for note in notes:
        assert note["both"]["error"] is note["compiled"]["error"] is None
        assert (note["two"]["error"], note["two"]["scored"]) == (None, [50, 50, 1] * 3)
        assert "ZeRO stage 3 is not supported" in note["three"]["error"]
        assert "DeepSpeed cannot change its optimizer" in note["switch"]["error"]
    first = curves(tmp_path / "one")
    assert len(first["loss"]) == 20
    for name in ("two", "both", "compiled"):
        second = curves(tmp_path / name)
        for key, values in first.items():
            assert second[key] == pytest.approx(values, abs=2e-3), name
