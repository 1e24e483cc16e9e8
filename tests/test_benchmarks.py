"""The benchmarks' own arithmetic: logs, clock, rows, table. What they measure is not repeated here."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripts import script

from sr_transformers.marks import between

ROOT = Path(__file__).parent.parent


def module(name: str):
    """A module of benchmarks/, which is no package: its files import each other by name."""
    return script(f"benchmarks/{name}.py")


harness, logs, table, worker = module("harness"), module("logs"), module("../docs/tables/speed"), module("peers/worker")


def a_row(case="c", metric="m", **more):
    row = {"case": case, "metric": metric, "unit": "s", "ours": 2.0, "best_peer": 4.0, "peer": "p", "ratio": 0.5}
    return {**row, "higher_is_better": False, "commit": "abc", "date": "2026-01-01", **more}


def test_logs_have_their_shape_and_every_item_is_learned_from():
    shape = logs.Shape(users=3_000, items=200, mean=20, shortest=5)
    log = logs.generate(shape)
    lengths = np.bincount(log["user_id"])
    assert len(lengths) == shape.users
    assert lengths.min() >= shape.shortest
    assert abs(lengths.mean() - shape.mean) < 0.05 * shape.mean
    ends = np.cumsum(lengths)
    assert (log["timestamp"] == np.arange(len(log["user_id"])) - np.repeat(ends - lengths, lengths)).all()
    left = np.repeat(lengths, lengths) - log["timestamp"]
    recent = log["item_id"][(left > 2) & (left <= 2 + logs.WINDOW)]
    assert set(recent) == set(range(shape.items))
    assert (logs.generate(shape)["item_id"] == log["item_id"]).all()


def test_logs_without_room_for_every_item_are_refused():
    with pytest.raises(ValueError, match="add users"):
        logs.generate(logs.Shape(users=2, items=100, mean=6, shortest=5))


def test_targets_of_a_step(tmp_path):
    users = np.repeat([0, 1], [5, 100])  # training parts of 3 and 98: 2 and 50 targets
    pq.write_table(pa.table({"user_id": users}), tmp_path / "log.parquet")
    assert logs.targets_per_step(tmp_path / "log.parquet", 4) == 4 * 26


def test_the_clock_counts_steady_steps(monkeypatch):
    times = iter([0.0, 9.0, 10.0, 12.0, 14.0])
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(times))
    clock = worker.StepClock({"warmup": 2, "seconds": 4})
    assert [clock.step(10, loss) for loss in (3.0, 2.5, 2.0, 1.5, 1.0)] == [False, False, False, False, True]
    result = clock.result()
    assert result["steps"] == 3
    assert result["targets_per_second"] == 5.0  # steps of 1, 2 and 2 seconds
    assert result["ms_per_step"] == 2000
    assert result["losses"] == [[10, 3.0], [20, 2.5], [30, 2.0], [40, 1.5], [50, 1.0]]


def test_the_clock_can_count_targets_instead_of_seconds(monkeypatch):
    times = iter(range(10))
    monkeypatch.setattr(worker.time, "perf_counter", lambda: float(next(times)))
    clock = worker.StepClock({"warmup": 1, "seconds": 0, "targets": 45})
    assert [clock.step(10) for _ in range(5)] == [False, False, False, False, True]


def test_a_row_compares_with_the_best():
    assert harness.row("c", "m", "x/s", 30.0, {"a": 10.0, "b": 12.0, "gone": None})["peer"] == "b"
    row = harness.row("c", "m", "ms", 3.0, {"a": 10.0, "b": 12.0}, higher_is_better=False)
    keys = {"case", "metric", "unit", "ours", "best_peer", "peer", "ratio", "higher_is_better", "commit", "date"}
    assert set(row) == keys
    assert (row["peer"], row["ratio"]) == ("a", 0.3)
    with pytest.raises(ValueError, match="no peer"):
        harness.row("c", "m", "ms", 3.0, {"a": None})


def test_medians_leave_skipped_turns_out():
    turns = [{"x": 1.0}, {"skipped": "why"}, {"x": 5.0}, {"x": 3.0}]
    assert harness.median(turns, "x") == 3.0
    assert harness.median([{"skipped": "why"}], "x") is None


def test_a_case_measured_again_replaces_its_rows_in_place():
    old = [a_row("a"), a_row("b", "1"), a_row("b", "2"), a_row("c")]
    new = [a_row("b", "3")]
    assert [(r["case"], r["metric"]) for r in harness.merged(old, new)] == [("a", "m"), ("b", "3"), ("c", "m")]
    assert harness.merged(old[:1], new) == [old[0], new[0]]


def test_a_missing_peer_is_skipped_with_a_reason(tmp_path):
    options = harness.parser("", ["c"], []).parse_args(["--environments", str(tmp_path), "--work", str(tmp_path)])
    assert "environments.py" in harness.run("RePlay", {"task": "training"}, options)["skipped"]
    assert "--sasrec-pytorch" in harness.run("SASRec.pytorch", {"task": "training"}, options)["skipped"]


def test_participants_take_turns_and_ours_may_not_fail(tmp_path, monkeypatch):
    options = harness.parser("", ["c"], []).parse_args(["--rounds", "2", "--work", str(tmp_path)])
    asked = []

    def run(name, settings, options):
        asked.append(name)
        return {"skipped": "broken"} if name == settings["broken"] else {"x": 1.0}

    monkeypatch.setattr(harness, "run", run)
    found = harness.rounds(["ours", "RePlay", "RecTools"], {"broken": "RePlay"}, options)
    assert asked == ["ours", "RePlay", "RecTools", "ours", "RecTools"]
    assert found["RePlay"] == [{"skipped": "broken"}]
    with pytest.raises(RuntimeError, match="broken"):
        harness.rounds(["ours"], {"broken": "ours"}, options)


def test_a_recorded_command_names_no_folder_of_the_machine():
    words = ["/x/training.py", "--work", "/x/y", "--case", "d 64, V 26k", "--results=/x", "--rounds", "5"]
    assert harness.command(words) == "python benchmarks/training.py --case 'd 64, V 26k' --rounds 5"


def test_the_table_says_how_many_times_better():
    hardware = {"cpu": "C", "cores": 2, "fast_bf16": ["amx_bf16"], "memory_gib": 8, "threads": 2}
    measured = {"ours": [{"versions": {"torch": "2"}}], "ours bf16": [{"versions": {"torch": "2"}}], "p": [{}]}
    content = {"rows": [a_row()], "cases": {"c": {"hardware": hardware, "measured": measured}}}
    lines = table.table({"training": content}).splitlines()
    assert "| c | m | s | 2 | 4 | p | 2.00 |" in lines
    assert lines[-3:] == [
        "- Machine: C, 2 cores, amx_bf16, 8 GiB, 2 threads.",
        "- ours: torch 2.",
        "- Commits: abc (2026-01-01).",
    ]


def test_result_files_hold_rows_and_the_readme_shows_them():
    results = table.load()
    assert next(iter(results)) == "training"
    for content in results.values():
        for row in content["rows"]:
            assert row["ratio"] == pytest.approx(row["ours"] / row["best_peer"], rel=0.01), row
    assert between(table.PAGE, "benchmarks") == table.table(results)
    shown = between(table.README, "speed")
    assert shown == table.front_table(results)
    assert len(shown.splitlines()) == 2 + len(table.FRONT)  # all of them were measured


def test_the_page_says_where_the_time_of_ranking_goes():
    cases = json.loads((table.RESULTS / "ranking_profile.json").read_text())["cases"]
    kinds = ("product with the item table", "sums, maxima and comparisons of scores", "top k")
    shares = {
        name: 100 * sum(case["by_kind"][kind] for kind in kinds) / case["microseconds_per_user"]
        for name, case in cases.items()
    }
    text = " ".join(table.PAGE.read_text().split())
    assert f"over its result take {shares['V 26k']:.0f} and {shares['V 240k']:.0f} % of the time" in text


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_growth_measures_what_it_names(monkeypatch):
    module("memory")
    growth = module("growth")
    monkeypatch.setattr(growth, "SECONDS", 0.05)
    for measure, value in ((growth.measure_users, 200), (growth.measure_rows, 20_000)):
        point = measure(value)
        assert point["per_second"] > 1_000
        assert point["bytes"] >= 0  # often 0: what was freed before is used again
    points = [{"value": x, "per_second": 3 / x, "bytes": 5 * x**2} for x in (1, 10, 1000)]
    assert growth.exponents(points, "per_second") == {"all": -1.0, "last_two": -1.0}
    assert growth.exponents(points, "bytes") == {"all": 2.0, "last_two": 2.0}


def test_what_a_divided_table_costs_is_counted_and_told_as_a_slope():
    module("memory")
    parallel = module("vocabulary_parallel")
    assert parallel.tensors(([1, [parallel.torch.zeros(3)]], "sum")) != []
    # One target of 4 numbers (a maximum, a sum, a score, a gradient), two look-ups, and 7 numbers to be compared.
    assert parallel.expected_bytes(rows=1, window=2, width=4) == 4 * (1 + 1 + 1 + 4 + 2 * 4) + 2 * 7 * 8
    assert parallel.slope([(10, 3.0), (20, 5.0), (30, 7.0)]) == pytest.approx(0.2)
    payload = parallel.Payload()
    group = parallel.dist.init_process_group("gloo", store=parallel.dist.HashStore(), rank=0, world_size=1)
    try:
        with payload:
            parallel.dist.all_reduce(parallel.torch.zeros(5), group=group)
            parallel.torch.zeros(100).sum()
    finally:
        parallel.dist.destroy_process_group()
    assert payload.bytes == 20


def test_the_plan_of_divided_models_is_as_good_as_the_page_on_planning_says():
    module("memory")
    divided = module("divided_memory")
    rows = {one["strategy"]: one for one in json.loads((divided.RESULTS / "divided_memory.json").read_text())["rows"]}
    assert set(rows) == set(divided.STRATEGIES)
    page = " ".join((divided.RESULTS.parents[1] / "docs/planning.md").read_text(encoding="utf-8").split())
    for strategy, one in rows.items():
        width, items = one["width"], one["items"]
        config = divided.LSRMConfig.from_size("98k", vocab_size=items + 2)
        work = divided.Work(rows=one["rows"], width=width, precision="fp32", device="cpu")
        again = divided.compare_with_measured(strategy, config, work, divided.PROCESSES, max(one["peaks"]))
        assert again["ratio"] == pytest.approx(one["ratio"])
        assert f"{again['ratio']:.2f} times what was measured" in page
        assert again["within"]


def test_the_page_on_divided_tables_shows_what_was_measured():
    measured = json.loads((harness.RESULTS / "vocabulary_parallel.json").read_text())
    page = " ".join((harness.HERE.parent / "docs/vocabulary.md").read_text(encoding="utf-8").split())
    over, beyond = measured["over_items"], measured["beyond_one"]
    one, two, four = (f"{over['slopes'][n]['bytes_per_item']:.0f}" for n in ("1", "2", "4"))
    assert f"{one} bytes per item in one process, {two} in each of two, {four} in each of four" in page
    assert [over["slopes"][n]["of_one_process"] for n in ("2", "4")] == pytest.approx([1 / 2, 1 / 4], rel=0.02)
    sent = {
        (point["payload_bytes"], point["expected_payload_bytes"]) for point in over["points"] if point["processes"] > 1
    }
    assert sent == {(16592, 16592)}
    assert "is 16,592 bytes" in page
    assert beyond["one_fails_where_two_train"]
    assert f"each with {beyond['two']['peak_bytes'] / 1e9:.1f} GB" in page
    assert f"a limit of {beyond['limit_bytes'] / 1e9:.1f} GB a process" in page


def test_the_page_on_lists_shows_what_was_measured():
    pytest.importorskip("lightgbm")
    pytest.importorskip("ranx")
    module("metrics")
    reranking = module("reranking")
    found = json.loads(reranking.RESULT.read_text())
    page = reranking.PAGE.read_text(encoding="utf-8")
    assert f"<!-- reranking -->\n{reranking.table(found)}\n<!-- /reranking -->" in page
    assert f"{found['data']['users']} users" in page
    assert f"it has {found['users_learned_from']} lists" in page
    assert found["model"] == pytest.approx(found["evaluate"])


def test_the_table_of_metrics_is_what_was_measured_and_all_agree():
    metrics = module("metrics")
    content = json.loads(metrics.RESULT.read_text())
    ours = content["found"]["sr_transformers"]
    for other in content["found"].values():
        assert {name: other[name] for name in metrics.METRICS} == pytest.approx(ours, abs=1e-9)
    assert f"<!-- metrics -->\n{metrics.table(content)}\n<!-- /metrics -->" in metrics.PAGE.read_text(encoding="utf-8")
