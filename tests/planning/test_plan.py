import json

import pytest

from sr_transformers import LSRMConfig
from sr_transformers.cli import main
from sr_transformers.planning.gpus import GPUS
from sr_transformers.planning.memory import Work
from sr_transformers.planning.nearest import what_would_fit
from sr_transformers.planning.plan import best, compare_with_measured, make_plan
from sr_transformers.planning.strategies import flops_per_target, host_bytes, shards, strategies, traffic

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


@pytest.mark.parametrize(
    ("history", "negatives", "says"),
    [
        ([], 98, "num_negatives is 98 and there are 98 items"),
        (["recency", "mix"], 50, r"knows nothing of the scores of history \(recency\)"),
    ],
)
def test_negatives_that_training_refuses_are_not_planned(history, negatives, says):
    config = LSRMConfig.from_size("98k", vocab_size=100, history=history)
    with pytest.raises(ValueError, match=says):
        make_plan(config, Work(num_negatives=negatives))
    assert make_plan(LSRMConfig.from_size("98k", vocab_size=100, history=["mix"]), Work(num_negatives=50))


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


ROWS = {"num_negatives": 4096, "table_updates": "row_adagrad"}


def test_strategies_are_those_that_can_be():
    assert strategies(1, BIG, Work()) == ("single", "zero-2+host")
    assert strategies(1, BIG, Work(**ROWS)) == ("single",)
    assert strategies(6, BIG, Work(optimizer="muon")) == ("ddp", "fsdp2", "table/2", "table/6")
    assert "fsdp2" not in strategies(6, BIG, Work(optimizer="muon", **ROWS))
    assert strategies(4, BIG, Work())[-2:] == ("table/2", "table/4")
    counting = LSRMConfig.from_size("98k", vocab_size=1000, history=["mix"])
    assert not any(one.startswith("table") for one in strategies(4, counting, Work()))


def test_a_divided_table_by_hand():
    table, rest = 240_322 * 1200, 829_440_000 + 48 * (9 * 1200 + 4 * 1200) + 2400 + 50 * 1200
    config = LSRMConfig.from_size("800m", vocab_size=240_322, max_position_embeddings=50)
    one = shards("table/4", config, Work(), 8)
    assert (one.weights, one.gradients, one.optimizer) == (4, 4, 8)
    assert one.table == (1, 1, 2)
    assert one.divided == 4
    assert one.buckets == 4 * rest + table  # there are two copies, which add their gradients
    assert shards("table/8", config, Work(), 8).buckets == 0
    adagrad = shards("table/8", config, Work(**ROWS), 8)
    assert adagrad.table == (0.5, 0, 4 / 1200 / 8)


def test_what_is_sent_by_hand():
    config = LSRMConfig(vocab_size=1000, hidden_size=8, num_hidden_layers=1, max_position_embeddings=10)
    work = Work(rows=2, width=10, precision="fp32")
    total = 12 * 64 + 9 * 8 + 4 * 8 + 16 + 1000 * 8 + 10 * 8
    assert traffic("single", config, work, 1) == 0
    assert traffic("ddp", config, work, 4) == 2 * 0.75 * 4 * total
    assert traffic("zero-3", config, work, 4) == 3 * 0.75 * 4 * total
    assert traffic("table/4", config, work, 4) == 2 * 0.75 * (20 * 8 * 4 + 20 * 8 * 4 + 3 * 20 * 4)
    rows = Work(rows=2, width=10, precision="fp32", num_negatives=5, table_updates="lazy_adam")
    # All but the table as ever, and to each of three others the rows of inputs, targets and negatives.
    assert traffic("ddp", config, rows, 4) == 2 * 0.75 * 4 * (total - 8000) + 3 * 45 * (8 * 4 + 8)


def test_the_host_holds_what_a_device_does_not():
    """16 bytes per parameter in mixed precision with Adam, without gradients in float32: ZeRO-Offload, section 4."""
    work, devices = Work(), 4
    total = sum(make_plan(BIG, work)["model"]["parameters"].values())
    assert host_bytes("zero-2+host", BIG, work, devices) == total * (4 + 8 + 2) / 4
    assert host_bytes("fsdp2+host", BIG, work, devices) == total * 16 / 4
    assert host_bytes("fsdp2", BIG, work, devices) == 0
    on_device = {row["strategy"]: row["bytes_per_device"] for row in make_plan(BIG, work, GPUS["L4"], 4)["strategies"]}
    assert on_device["fsdp2+host"] < on_device["fsdp2"]


def test_sampled_flops_are_those_of_the_items_scored():
    flops = flops_per_target(LSRMConfig.from_size("98k", vocab_size=1000), Work(num_negatives=99))
    assert flops.head == 6 * 100 * 64


def test_time_is_that_of_the_fastest_that_fits():
    """The blocks of a divided table are computed by all that have it; a bandwidth adds what is sent."""
    config = LSRMConfig.from_size("98k", vocab_size=50_000_002)
    plan = make_plan(config, Work(), GPUS["L4"], 8)
    chosen = plan["best"]
    assert chosen["strategy"].startswith("table/")
    k = int(chosen["strategy"][6:])
    flops = flops_per_target(config, Work())
    each = (flops.blocks + flops.attention + flops.head / k) * 64 * 50
    assert chosen["seconds_per_step"] == pytest.approx(each / (121e12 * 0.4))
    assert chosen["targets_per_second"] == pytest.approx(8 / k * 3200 / chosen["seconds_per_step"])
    slow = make_plan(config, Work(), GPUS["L4"], 8, bandwidth=1e9)["strategies"]
    row = next(one for one in slow if one["strategy"] == chosen["strategy"] and not one["checkpointing"])
    sent = traffic(chosen["strategy"], config, Work(), 8)
    assert row["seconds_per_step"] == pytest.approx(each / (121e12 * 0.4) + sent / 1e9)


def test_of_equally_fast_ones_that_which_sends_least():
    rows = make_plan(BIG, Work(rows=8), GPUS["A100-80GB"], 8)["strategies"]
    chosen = best(rows)
    assert not chosen["checkpointing"]
    equals = [row for row in rows if row["fits"] and row["targets_per_second"] == chosen["targets_per_second"]]
    assert len(equals) > 1
    assert chosen["host_bytes_per_device"] == 0
    sent = {row["bytes_sent_per_device_and_step"] for row in equals if not row["host_bytes_per_device"]}
    assert chosen["bytes_sent_per_device_and_step"] == min(sent)
    assert best([{**row, "fits": False} for row in rows]) is None


HUGE = LSRMConfig.from_size("800m", vocab_size=100_000_002)


def test_where_nothing_fits_the_nearest_that_does_is_named():
    plan = make_plan(HUGE, Work(), GPUS["A100-80GB"], 8)
    assert plan["best"] is None
    assert "time" not in plan
    found = what_would_fit(HUGE, Work(), GPUS["A100-80GB"], 8, targets=1000)
    words = [" ".join(one["change"]) for one in found]
    assert any("x A100" in one and "sampled" not in one for one in words)
    assert any("x A100" in one and "row_adagrad" in one for one in words)
    assert any("wide" in one for one in words)
    for one in found:
        assert one["fits"]
        assert one["bytes_per_device"] <= 0.92 * 80e9
        assert one["time"]["seconds"] == pytest.approx(1000 / one["targets_per_second"])
    # It is the nearest: half as many GPUs, or 16 numbers per item more, do not fit.
    more = next(one for one in found if one["change"] == [f"{one['devices']} x A100-80GB"])
    assert best(make_plan(HUGE, Work(), GPUS["A100-80GB"], more["devices"] // 2)["strategies"]) is None
    narrow = next(one for one in found if one["change"] == [f"a model {one['hidden_size']} wide"])
    assert (narrow["hidden_size"], narrow["num_non_embedding_parameters"]) == (
        narrow["hidden_size"],
        12 * 48 * narrow["hidden_size"] ** 2,
    )
    wider = LSRMConfig.from_size(
        "800m", vocab_size=100_000_002, hidden_size=narrow["hidden_size"] + 16, num_attention_heads=8
    )
    assert make_plan(wider, Work(), GPUS["A100-80GB"], 8)["best"] is None


def test_fewer_rows_or_row_updates_can_be_enough():
    config = LSRMConfig.from_size("9m", vocab_size=15_000_002)
    words = [one["change"] for one in what_would_fit(config, Work(), GPUS["L4"], 1)]
    assert ["sampled softmax, 8,192 negatives", "table_updates row_adagrad"] in words
    many = LSRMConfig.from_size("75m", vocab_size=10_002)
    words = [one["change"] for one in what_would_fit(many, Work(rows=1 << 16), GPUS["L4"], 1)]
    assert words[0] == ["1 row a step"]
    history = LSRMConfig.from_size("9m", vocab_size=15_000_002, history=["recency"])
    assert not any("sampled" in " ".join(one["change"]) for one in what_would_fit(history, Work(), GPUS["L4"], 1))
    nothing = LSRMConfig.from_size("800m", vocab_size=2_000_000_000)
    assert what_would_fit(nothing, Work(), GPUS["L4"], 1) == []


def test_a_plan_beside_what_was_measured():
    work, moments = Work(rows=8), make_plan(BIG, Work(rows=8))["memory"]["without checkpointing"]
    one = compare_with_measured("single", BIG, work, 1, moments["peak_bytes"] / 1.05)
    assert one["ratio"] == pytest.approx(1.05)
    assert one["within"]
    assert one["planned_bytes"] == sum(one["parts"].values()) == moments["peak_bytes"]
    assert not compare_with_measured("single", BIG, work, 1, moments["peak_bytes"] / 1.2)["within"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"utilisation": 1.5}, "utilisation is 1.5"),
        ({"targets": 0}, "targets is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"gpu": GPUS["T4"]}, "T4 has no bf16"),
        ({"bandwidth": 0.0}, "bandwidth is 0"),
    ],
)
def test_what_makes_no_plan_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_plan(BIG, Work(), **settings)


@pytest.mark.parametrize("strategy", ["zero-9", "table/3"])
def test_an_unknown_strategy_is_refused(strategy):
    with pytest.raises(ValueError, match="choose from ddp"):
        shards(strategy, BIG, Work(), 2)


def test_the_command(tmp_path, capsys):
    arguments = ["--items", "240320", "--gpus", "8xA100-80GB", "--targets", "21000000", "--checkpointing"]
    assert main(["plan", "--size", "800m", *arguments, "--json", str(tmp_path / "plan.json")]) == 0
    out = capsys.readouterr().out
    for word in ("829,440,000", "fsdp2", "zero-3", "targets/s", "an epoch", "computed again", "table/k"):
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


def test_the_command_says_what_would_fit(tmp_path, capsys):
    arguments = [
        "--size",
        "800m",
        "--items",
        "100000000",
        "--gpus",
        "8xA100-80GB",
        "--json",
        str(tmp_path / "plan.json"),
    ]
    assert main(["plan", *arguments, "--targets", "1000000"]) == 0
    out = capsys.readouterr().out
    for words in ("None of these fits. What would", "row_adagrad: table/", "another model, N ", "sent a step", "epoch"):
        assert words in out
    assert json.loads((tmp_path / "plan.json").read_text())["instead"]
    assert main(["plan", "--size", "800m", "--items", "2000000000", "--gpus", "L4"]) == 0
    assert "nothing that was tried would" in capsys.readouterr().out


def test_the_command_with_what_is_special(capsys):
    training = ["--num-negatives", "100", "--table-updates", "lazy_adam", "--optimizer", "muon", "--bandwidth", "300"]
    assert main(["plan", "--size", "98k", "--items", "3416", "--gpus", "2xL4", *training]) == 0
    out = capsys.readouterr().out
    for words in (
        "sampled softmax of 100",
        "table_updates lazy_adam",
        "muon",
        "sending 300 GB/s",
        "Fastest that fits: ddp",
    ):
        assert words in out
    history = ["--history", "mix", "recency", "--num-successors", "8", "--targets", "1000"]
    assert main(["plan", "--size", "98k", "--items", "3416", *history]) == 0
    out = capsys.readouterr().out
    assert "At most 8 successors of every item: at most 0.1 MB on each process" in out
    assert "while they are counted" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "98k", "--items", "10", "--table-updates", "lazy_adam"], "needs num_negatives"),
        (["--size", "1b", "--items", "10"], "unknown size '1b'"),
        (["--size", "98k", "--items", "10", "--row-width", "20"], "--row-width 20 cannot hold windows of 50"),
        (["--size", "98k", "--items", "10", "--gpus", "3xT5"], "unknown accelerator"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["plan", *arguments]) == 2
    assert message in capsys.readouterr().err
