import json

import pytest

from sr_transformers import LSRMConfig
from sr_transformers.cli import main
from sr_transformers.planning.gpus import GPUS
from sr_transformers.planning.memory import Work
from sr_transformers.planning.plan import flops_per_target, make_plan, shards, strategies

BIG = LSRMConfig.from_size("800m", vocab_size=240_322)


def test_flops_by_hand():
    flops = flops_per_target(LSRMConfig.from_size("98k", vocab_size=1000), Work(width=50))
    assert (flops.blocks, flops.head, flops.attention) == (6 * 98_304, 6 * 1000 * 64, 12 * 2 * 64 * 50)
    assert flops.useful == flops.done == 589_824 + 384_000 + 76_800
    again = flops_per_target(LSRMConfig.from_size("98k", vocab_size=1000), Work(width=50, checkpointing=True))
    assert again.useful == flops.useful
    assert again.done - again.useful == (589_824 + 76_800) / 3
    flash = flops_per_target(LSRMConfig.from_size("98k", vocab_size=1000), Work(width=50, attention="flash"))
    assert flash.attention == flops.attention / 2


def test_time_is_flops_over_what_the_devices_do():
    plan = make_plan(BIG, Work(rows=10), GPUS["H100"], 4, utilisation=0.5, targets=1_000_000, epochs=3)
    per_target = plan["flops_per_target"]["done"]
    assert plan["time"]["seconds"] == pytest.approx(3e6 * per_target / (4 * 989.4e12 * 0.5))
    assert plan["time"]["seconds_per_step"] == pytest.approx(4 * 500 * per_target / (4 * 989.4e12 * 0.5))
    assert plan["flops"] == 3e6 * plan["flops_per_target"]["useful"]


def test_bytes_per_parameter_of_zero_are_its_papers():
    """Rajbhandari et al. 2020, figure 1: 7.5 B parameters, 64 devices, Adam: 120, 31.4, 16.6 and 1.9 GB."""
    work = Work()
    by_paper = {"zero-1": 31.4, "zero-2": 16.6, "zero-3": 1.9}
    for strategy, expected in by_paper.items():
        one = shards(strategy, BIG, work, 64)
        assert 7.5 * (one.weights + one.gradients + one.optimizer) == pytest.approx(expected, abs=0.05)
    ddp = shards("ddp", BIG, work, 64)
    assert 7.5 * (ddp.weights + ddp.gradients + ddp.optimizer) == 120


def test_more_sharding_never_takes_more():
    rows = make_plan(BIG, Work(rows=8), GPUS["L4"], 8)["strategies"]
    size = {row["strategy"]: row["bytes_per_device"] for row in rows if row["checkpointing"]}
    assert size["ddp"] > size["zero-1"] >= size["zero-2"] > size["zero-3"]
    assert size["fsdp2"] < size["zero-2"]
    fits = {row["strategy"]: row["fits"] for row in rows if row["checkpointing"]}
    assert fits["fsdp2"]
    assert not fits["ddp"]  # 20 bytes for each of 1.1 B parameters, on 24 GB


def test_sgd_has_one_number_of_state():
    assert shards("single", BIG, Work(optimizer="sgd"), 1).optimizer == 4
    assert strategies(1) == ("single",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"utilisation": 1.5}, "utilisation is 1.5"),
        ({"targets": 0}, "targets is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"gpu": GPUS["T4"]}, "T4 has no bf16"),
    ],
)
def test_what_makes_no_plan_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_plan(BIG, Work(), **settings)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="choose from ddp"):
        shards("zero-9", BIG, Work(), 2)


def test_the_command(tmp_path, capsys):
    arguments = ["--items", "240320", "--gpus", "8xA100-80GB", "--targets", "21000000", "--checkpointing"]
    assert main(["plan", "--size", "800m", *arguments, "--json", str(tmp_path / "plan.json")]) == 0
    out = capsys.readouterr().out
    for word in ("829,440,000", "fsdp2", "zero-3", "targets/s", "an epoch", "computed again"):
        assert word in out
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["device"]["number"] == 8
    assert plan["work"]["precision"] == "bf16"
    with_, without = plan["memory"]["with checkpointing"], plan["memory"]["without checkpointing"]
    assert with_["peak_bytes"] < without["peak_bytes"]


def test_the_command_without_a_gpu_plans_a_cpu(capsys):
    assert main(["plan", "--size", "98k", "--items", "3416"]) == 0
    out = capsys.readouterr().out
    assert "fp32" in out
    assert "targets/s" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "1b", "--items", "10"], "unknown size '1b'"),
        (["--size", "98k", "--items", "10", "--row-width", "20"], "--row-width 20 cannot hold windows of 50"),
        (["--size", "98k", "--items", "10", "--gpus", "3xT5"], "unknown accelerator"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["plan", *arguments]) == 2
    assert message in capsys.readouterr().err
