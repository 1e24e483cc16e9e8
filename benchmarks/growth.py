"""python benchmarks/growth.py: how throughput and memory grow: training with V, window, width, layers and users,
preparation with rows.

Each point is a process of its own: one training step to warm up (forward, backward, clipping, fused AdamW; float32,
OMP_NUM_THREADS threads), then as many as fit into a few seconds. Throughput is targets per second (median step), memory
the peak resident set above what the process held after a tiny model's step. One thing grows at a time from 2 layers,
d 64, window 50, V 3,418; every step has about 800 targets (3,200 where the window grows, in fewer and longer rows). For
users the model is left out: planning an epoch and collating batches of histories of about 12 interactions. For rows a
log of MovieLens 20M's lengths and catalogue, sorted by user, is prepared from Parquet.

Exponents are slopes of a line through the logarithms, over all points and between the last two. Written to
benchmarks/results/growth.json, growth.png and growth.svg (the figure needs matplotlib). `--prefix "taskset -c 0"`, or
another command, stands in front of the measured processes; `--figure` draws the stored result again. It wants a quiet
machine.
"""

import argparse
import functools
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from memory import PeakMemory, train_steps

from sr_transformers import LSRMConfig, prepare
from sr_transformers.data.batches import EpochBatchSampler, PackingCollator, WindowDataset
from sr_transformers.data.packing import ALL_POSITIONS
from sr_transformers.planning.memory import Work
from sr_transformers.records import source_commit

RESULTS = Path(__file__).parent / "results"
BASE = {"vocab_size": 3_418, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 50}
TARGETS, SECONDS, MEAN_LENGTH = 800, 2.0, 12
ROWS_PER_USER, ROW_ITEMS = 134, 26_427
AXES: dict[str, tuple[str, list[int]]] = {
    "V": ("vocab_size", [3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000]),
    "window": ("max_position_embeddings", [50, 100, 200, 400, 1_024]),
    "d": ("hidden_size", [64, 128, 256, 512]),
    "layers": ("num_hidden_layers", [2, 4, 8, 16, 32]),
    "users": ("users", [1_000, 10_000, 100_000, 1_000_000]),
    "rows": ("rows", [1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000]),
}
NOTES = {"users": " (input path alone)", "rows": " (preparation)"}


def measure_training(axis: str, value: int) -> dict[str, float]:
    """Targets per second and peak bytes of training steps."""
    config = LSRMConfig(**{**BASE, AXES[axis][0]: value})
    rows = max((4 if axis == "window" else 1) * TARGETS // config.max_position_embeddings, 1)
    work = Work(rows=rows, width=config.max_position_embeddings, precision="fp32", device="cpu")
    train_steps(
        LSRMConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1), Work(2, precision="fp32", device="cpu"), 1
    )
    memory = PeakMemory()
    times = train_steps(config, work, 2, SECONDS)[1:]
    return {"per_second": work.positions / statistics.median(times), "bytes": memory.bytes()}


class Log:
    """What `WindowDataset` asks of a prepared log, without a file."""

    def __init__(self, users: int):
        rng = np.random.default_rng(0)
        self.lengths = rng.geometric(1 / MEAN_LENGTH, users) + 1
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.flat = rng.integers(2, BASE["vocab_size"], int(self.lengths.sum()), dtype=np.int32)

    def train_items(self, history: int, stop: int, start: int) -> np.ndarray:
        """Tokens of a history."""
        return self.flat[self.starts[history] + start : self.starts[history] + stop]


def measure_users(users: int) -> dict[str, float]:
    """Targets per second of planning an epoch and collating batches, and the bytes that takes beside the log."""
    log, window = Log(users), BASE["max_position_embeddings"]
    memory = PeakMemory()
    start = time.perf_counter()
    sampler = EpochBatchSampler(log.lengths, window, window, 64, 0, ALL_POSITIONS)
    planning = (time.perf_counter() - start) / sampler.plan.num_targets
    dataset, collator = WindowDataset(log, sampler.num_rows), PackingCollator(window)  # type: ignore[arg-type]
    collated, start = 0, time.perf_counter()
    for keys in sampler:
        batch = collator([dataset[key] for key in keys])
        collated += int((batch["labels"] != -100).sum())  # type: ignore[operator, union-attr]
        if time.perf_counter() - start > SECONDS:
            break
    per_target = planning + (time.perf_counter() - start) / collated
    return {
        "per_second": 1 / per_target,
        "planning_seconds": planning * sampler.plan.num_targets,
        "bytes": memory.bytes(),
    }


def write_log(path: Path, rows: int) -> None:
    """A log of so many rows as Parquet, a part at a time."""
    rng = np.random.default_rng(0)
    columns = [(name, pa.int64()) for name in ("user_id", "item_id", "timestamp")]
    with pq.ParquetWriter(path, pa.schema(columns)) as writer:
        for first in range(0, rows, 1_000_000):
            place = np.arange(first, min(first + 1_000_000, rows))
            items = (ROW_ITEMS ** rng.random(len(place))).astype(np.int64)  # popularity falls as one over the rank
            table = {"user_id": place // ROWS_PER_USER, "item_id": items, "timestamp": place % ROWS_PER_USER}
            writer.write_table(pa.table(table))


def measure_rows(rows: int) -> dict[str, float]:
    """Rows per second of a preparation from file to folder, and the bytes that takes."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.parquet"
        write_log(log, 10_000)  # libraries have allocated what they keep
        prepare(log, Path(folder) / "warm")
        # In a process of its own: what writing leaves behind is not preparation's.
        code = f"import growth, pathlib; growth.write_log(pathlib.Path({str(log)!r}), {rows})"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
        memory = PeakMemory()
        start = time.perf_counter()
        prepare(log, Path(folder) / "out")
        seconds = time.perf_counter() - start
    return {"per_second": rows / seconds, "bytes": memory.bytes()}


def exponents(points: list[dict[str, float]], name: str) -> dict[str, float]:
    """Slopes of log(name) over log(value)."""
    x, y = np.log([p["value"] for p in points]), np.log([p[name] for p in points])
    return {
        "all": round(float(np.polyfit(x, y, 1)[0]), 3),
        "last_two": round(float(np.diff(y)[-1] / np.diff(x)[-1]), 3),
    }


def draw(result: dict[str, Any]) -> None:
    """The figure: a column per axis, throughput above memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = (
        ("per_second", "targets / s (last: rows / s)", "#0072B2", "o", 1.0),
        ("bytes", "peak memory, MB", "#D55E00", "s", 1e-6),
    )
    figure, axes = pyplot.subplots(2, len(AXES), figsize=(17, 5.6), sharex="col", layout="constrained")
    for column, (axis, one) in enumerate(result["axes"].items()):
        values = [point["value"] for point in one["points"]]
        for row, (name, label, colour, marker, unit) in enumerate(rows):
            plot = axes[row, column]
            measured = [point[name] * unit for point in one["points"]]
            plot.loglog(values, measured, color=colour, marker=marker)
            slopes = one["exponents"][name]
            low, high = min(measured), max(measured)
            if high < 10 * low:  # a decade at least, or what hardly moves looks like a cliff
                middle = (low * high) ** 0.5
                plot.set_ylim(middle * 10**-0.55, middle * 10**0.55)
            if values[-1] < 50 * values[0]:  # less than two decades: the values themselves, or labels run into another
                plot.set_xticks(values, [str(value) for value in values])
                plot.xaxis.minorticks_off()
            plot.set_title(f"exponent {slopes['all']:.2f}, at the end {slopes['last_two']:.2f}", fontsize=9)
            plot.grid(True, which="major", alpha=0.3)
            if not column:
                plot.set_ylabel(label)
        axes[1, column].set_xlabel(axis + NOTES.get(axis, ""))
    with matplotlib.rc_context({"svg.hashsalt": "growth"}):  # the same picture is the same file
        for kind in ("png", "svg"):
            figure.savefig(RESULTS / f"growth.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)


def main() -> None:
    """Measures, fits, writes and draws."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", default="", help="stands in front of every measured process")
    parser.add_argument("--figure", action="store_true", help="only draw the stored result")
    parser.add_argument("--point", nargs=2, metavar=("AXIS", "VALUE"), help="measure this one here")
    options = parser.parse_args()
    if options.point:
        axis, value = options.point[0], int(options.point[1])
        measure = {"users": measure_users, "rows": measure_rows}.get(axis, functools.partial(measure_training, axis))
        print(json.dumps(measure(value)))
        return
    stored = RESULTS / "growth.json"
    if not options.figure:
        result: dict[str, Any] = {
            "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
            "commit": source_commit(),
            "base": BASE,
            "axes": {},
        }
        for axis, (_, values) in AXES.items():
            points = []
            for value in values:
                command = [*shlex.split(options.prefix), sys.executable, __file__, "--point", axis, str(value)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")
                points.append({"value": value, **json.loads(done.stdout.splitlines()[-1])})
                print(axis, points[-1], flush=True)
            slopes = {name: exponents(points, name) for name in ("per_second", "bytes")}
            result["axes"][axis] = {"points": points, "exponents": slopes}
        stored.write_text(json.dumps(result, indent=2) + "\n")
    draw(json.loads(stored.read_text()))


if __name__ == "__main__":
    main()
