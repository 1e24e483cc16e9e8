"""`benchmarks/gpu.py` on a CPU: that it survives what fails, says why, and measures what it names."""

import importlib
import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import varlen
from varlen_kernel import stand_in

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.fixture
def part(gpu):
    return lambda name: importlib.import_module(f"gpu_parts.{name}")


def test_the_command_writes_rows_with_reasons(tmp_path):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--tiny", "--minutes", "6", "--output", tmp_path / "out"]
    subprocess.run([*command, "--only", "exactness", "loss"], check=True)
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    found = {row["case"].get("attention", row["case"].get("implementation")): row for row in rows}
    assert found["sdpa"]["holds"]
    assert found["sdpa"]["gradient_error"] > 1e-4  # it is bf16 that is compared
    assert found["ours"]["loss_error"] < 1e-3
    for name in ("ours", "torch"):
        assert found[name]["gradient_error"] < 0.01
    for name, reason in {
        "torch_varlen": "runs on CUDA GPUs",
        "flash_attention_2": "not installed",
        "liger": "not installed",
        "cut-cross-entropy": "not installed",
    }.items():
        assert found[name]["status"] == "failed"
        assert reason in found[name]["reason"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rows"] == rows
    assert summary["machine"]["versions"]["torch"] == torch.__version__
    assert summary["bars"][0] == {"name": "packed is exact", "value": 1, "bar": 1, "holds": True}
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| ours, width 16, items 300, targets 64 |" in table
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert "holds rows.jsonl already; give a new folder" in again.stderr


WORKER = """
import json, sys, time
for index, case in enumerate(json.loads(sys.argv[1])):
    print("noise of a library")
    print("::gpu:: " + json.dumps({"begin": index}), flush=True)
    if case["does"] == "dies":
        sys.exit("CUDA error: an illegal memory access")
    time.sleep(60 if case["does"] == "hangs" else 0)
    print("::gpu:: " + json.dumps({"row": {"status": "ok", "seconds": 0.0}}), flush=True)
"""


def run(gpu, monkeypatch, folder, script, does, limit, seconds):
    """(status, reason) of every case."""
    monkeypatch.setattr(
        gpu, "command_of", lambda part, cases, tiny: [sys.executable, "-c", script, json.dumps(cases), "--worker"]
    )
    report = gpu.Report(folder, Namespace(minutes=1, tiny=True, only=None))
    cases = [{"does": one, "limit": limit} for one in does]
    gpu.run_part("loss", cases, time.monotonic() + seconds, report)
    assert [row["case"] for row in report.rows] == cases
    return [(row["status"], row.get("reason")) for row in report.rows]


def test_what_dies_or_hangs_is_a_row_and_the_others_are_measured(gpu, monkeypatch, tmp_path):
    does = ["works", "dies", "works", "hangs", "works"]
    found = run(gpu, monkeypatch, tmp_path, WORKER, does, limit=1.0, seconds=60)
    assert found == [
        ("ok", None),
        ("failed", "the process ended with 1: CUDA error: an illegal memory access"),
        ("ok", None),
        ("timed out", "not done after 1 s"),
        ("ok", None),
    ]


def test_what_cannot_be_loaded_fails_for_all_and_what_has_no_time_is_not_begun(gpu, monkeypatch, tmp_path):
    broken = "raise ImportError('no module named polars')"
    found = run(gpu, monkeypatch, tmp_path / "a", broken, ["works", "works"], limit=5, seconds=60)
    assert found == 2 * [("failed", "the process ended with 1: ImportError: no module named polars")]
    slow = "import time; time.sleep(60)"
    monkeypatch.setattr(gpu, "LOADING", 1)
    found = run(gpu, monkeypatch, tmp_path / "b", slow, ["works", "works"], limit=5, seconds=60)
    assert found == 2 * [("timed out", "not loaded after 1 s")]
    found = run(gpu, monkeypatch, tmp_path / "c", WORKER, ["works", "works"], limit=5, seconds=gpu.LEAST - 1)
    assert found == 2 * [("no time", "the part's time was over")]


def test_full_sizes_are_not_for_cpus(gpu):
    with pytest.raises(SystemExit, match="torch sees no GPU here; --tiny tries"):
        gpu.work("loss", [], tiny=False)


def test_bars_are_held_against_what_was_measured(gpu):
    def row(part, value, **case):
        key = {"exactness": "holds", "training": "mfu", "packing": "targets_per_second"}[part]
        return {"part": part, "case": case, "status": "ok", key: value}

    rows = [
        row("exactness", True),
        row("exactness", False),
        row("training", 0.5, size="800m", items="26k", compiled=True),
        row("training", 0.3, size="800m", items="26k", compiled=False),
        row("training", 0.9, size="75m", items="26k"),
        {"part": "packing", "case": {"size": "75m", "layout": "flat"}, "status": "failed", "reason": "x"},
        row("packing", 190.0, size="75m", layout="rows"),
        row("packing", 100.0, size="75m", layout="padded"),
        row("packing", 150.0, size="9m", layout="flat"),
    ]
    found = gpu.bars(rows, {"data_sheet": {"name": "H200"}})
    assert [(bar["value"], bar["holds"]) for bar in found] == [(1, False), (0.5, True), (1.9, True), (None, None)]
    elsewhere = gpu.bars(rows, {"data_sheet": {"name": "A100-80GB"}})
    assert (elsewhere[1]["value"], elsewhere[1]["holds"]) == (0.5, None)


def test_flat_rows_are_compared_with_the_loop_and_a_kernel_that_mixes_users_is_found_out(part, kernel, monkeypatch):
    case = {"attention": "torch_varlen", "precision": "bf16", "head_size": 10}
    found = part("exactness").measure(case)
    assert found["holds"]
    assert 1e-4 < found["gradient_error"] < 0.1

    def one_user(query, key, value, cu_seq_q, cu_seq_k, *args, **more):
        return stand_in(query, key, value, cu_seq_q[[0, -1]], cu_seq_k[[0, -1]], *args, **more)

    monkeypatch.setattr(varlen, "varlen_attn", one_user)
    assert not part("exactness").measure(case)["holds"]


def test_training_and_packing_take_the_kernel_where_it_runs(part, kernel):
    trained = part("training").measure({"size": "tiny", "items": "tiny", "attention": "auto", "compiled": False})
    assert (trained["attention_used"], trained["targets"]) == ("torch_varlen", 200)
    packed = part("packing").measure({"size": "tiny", "items": "tiny", "layout": "flat"})
    assert (packed["attention_used"], packed["filled"]) == ("torch_varlen", 1.0)


def test_a_plan_that_promised_too_much_costs_rows_and_not_the_case(part, monkeypatch):
    training = part("training")
    monkeypatch.setattr(training, "fitting_rows", lambda *args: [8, 4])

    class Full(training.Training):
        def step(self, batch):
            if len(batch["input_ids"]) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            super().step(batch)

    monkeypatch.setattr(training, "Training", Full)
    case = {"size": "tiny", "items": "tiny", "attention": "sdpa", "compiled": False}
    found = training.measure(case)
    assert (found["rows_planned"], found["rows"]) == (8, 4)
    monkeypatch.setattr(training, "fitting_rows", lambda *args: [8])
    with pytest.raises(RuntimeError, match="no number of rows fits"):
        training.measure(case)


def test_the_lengths_are_like_amazons(part):
    lengths = torch.tensor(part("packing").lengths_of(20_000), dtype=torch.float64)
    assert (lengths.median(), lengths.min(), lengths.max()) == (7, 2, 50)
    assert lengths.mean() == pytest.approx(9, abs=0.3)


@pytest.mark.parametrize("layout", ["flat", "rows", "padded", "grouped"])
def test_every_layout_holds_the_same_users(part, layout):
    batch = part("common").lay_out([3, 50, 7, 2, 21], layout, 100)
    assert int((batch["shift_labels"] != -100).sum()) == 83
    assert batch["input_ids"].shape == {"flat": (1, 83), "rows": (2, 50)}.get(layout, (5, 50))
    if "position_ids" in batch:
        starts = (batch["position_ids"] == 0) & (batch["input_ids"] != 0)
        assert int(starts.sum()) == 5
    if layout == "flat":
        assert batch["cu_seq_lens_q"].tolist() == [0, 3, 53, 60, 62, 83]
        assert batch["max_length_k"] == 50
