"""What all workers share: a worker is one process in one library's environment that measures one task.

    python worker_NAME.py SETTINGS.json   ->   last line of stdout: RESULT {json}

Imports nothing but the standard library, numpy and pandas, which every environment has, and nothing of ours.
"""

import gc
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

MARK = "RESULT "


class EnoughError(Exception):
    """Raised to leave a training loop that has no other way out."""


class StepClock:
    """Times optimizer steps from end to end, so that loading data counts.

    Args:
        settings: `warmup` steps that do not count, `seconds` after which it is done (with two steps at least), or
            instead of them `targets`, warm-up included.
    """

    def __init__(self, settings: dict[str, Any]):
        self.warmup, self.seconds, self.enough = settings["warmup"], settings["seconds"], settings.get("targets")
        self.times: list[float] = []
        self.targets: list[int] = []
        self.losses: list[float] = []

    def step(self, targets: int, loss: float | None = None) -> bool:
        """Notes the end of a step with so many real targets; True when there is enough."""
        self.times.append(time.perf_counter())
        self.targets.append(targets)
        if loss is not None:
            self.losses.append(loss)
        if self.enough is not None:
            return sum(self.targets) >= self.enough
        counted = len(self.times) - self.warmup
        return counted >= 2 and self.times[-1] - self.times[self.warmup - 1] >= self.seconds

    def result(self) -> dict[str, Any]:
        """`targets_per_second` and `ms_per_step` (medians over steps: a stall is somebody else's), `steps` counted,
        `losses` as pairs (targets seen, loss), one per step."""
        durations = np.diff(self.times)[self.warmup - 1 :]
        seen = np.cumsum(self.targets).tolist()
        return {
            "targets_per_second": float(np.median(np.array(self.targets[self.warmup :]) / durations)),
            "ms_per_step": float(np.median(durations)) * 1000,
            "targets_per_step": float(np.mean(self.targets[self.warmup :])),
            "steps": len(durations),
            "losses": [[targets, round(loss, 4)] for targets, loss in zip(seen, self.losses, strict=False)],
        }


def latencies(call: Callable[[int], Any], settings: dict[str, Any]) -> dict[str, float]:
    """`p50_ms` and `p99_ms` of `call(i)`, i counting up; collections of garbage do not fall into a timing."""
    for index in range(settings["warmup_calls"]):
        call(index)
    gc.collect()
    gc.disable()
    times = []
    for index in range(settings["calls"]):
        start = time.perf_counter()
        call(index)
        times.append(time.perf_counter() - start)
    gc.enable()
    return {"p50_ms": float(np.percentile(times, 50)) * 1000, "p99_ms": float(np.percentile(times, 99)) * 1000}


def throughput(call: Callable[[int], int], seconds: float) -> float:
    """Users per second of `call(i)`, which answers that many users; the first call does not count."""
    call(0)
    start, users, index = time.perf_counter(), 0, 1
    while (spent := time.perf_counter() - start) < seconds or index < 3:
        users += call(index)
        index += 1
    return users / spent


def read_histories(settings: dict[str, Any]) -> tuple[list[np.ndarray], int]:
    """Histories of a log (item numbers from 0, oldest first) and the number of items."""
    frame = pd.read_parquet(settings["log"])
    items, names = pd.factorize(frame["item_id"])
    starts = np.flatnonzero(np.diff(frame["user_id"].to_numpy(), prepend=-1))
    return np.split(items, starts[1:]), len(names)


def peak_bytes() -> int:
    """Largest resident set of this process. Not `ru_maxrss`: that begins with the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(tasks: dict[str, Callable[[dict[str, Any]], dict[str, Any]]], packages: tuple[str, ...]) -> None:
    """Runs the task that the settings name and prints its measurements."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    if settings["task"] not in tasks:
        print(MARK + json.dumps({"skipped": f"no {settings['task']} here"}))
        return
    result = tasks[settings["task"]](settings)
    result["peak_gib"] = peak_bytes() / 2**30
    result["versions"] = {name: version(name) for name in packages} | {"python": platform.python_version()}
    print("\n" + MARK + json.dumps(result), flush=True)
