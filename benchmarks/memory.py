"""python benchmarks/memory.py: is the memory that `sr-transformers plan` states the memory that training takes?

Every case is a process of its own. It trains a tiny model for a step first, so that libraries have allocated what they
keep, notes its resident set, resets the kernel's peak counter, builds the case's model, trains it for a few steps
(forward, backward, clipping, optimizer) and reads the peak. Planned stands beside measured twice:

    live      freed memory goes back to the system at once (malloc's mmap threshold at 64 KiB): what is really alive
    default   malloc as it comes: it keeps some of what was freed, so this is what `top` shows

Written to benchmarks/results/memory.json. `--prefix "taskset -c 0"`, or another command, stands in front of the
measured processes. Linux only: it reads /proc.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.planning.memory import Work, peak, training_memory
from sr_transformers.records import source_commit

RESULT = Path(__file__).parent / "results" / "memory.json"
LIVE = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=65536"}
STEPS = 2  # from the second on everything is allocated
CASES: list[dict[str, Any]] = [
    {"size": "98k", "items": 3_416, "rows": 64},
    {"size": "98k", "items": 26_427, "rows": 64},
    {"size": "98k", "items": 240_320, "rows": 64},
    {"size": "98k", "items": 240_320, "rows": 64, "precision": "bf16"},
    {"size": "98k", "items": 240_320, "rows": 64, "optimizer": "sgd"},
    {"size": "786k", "items": 26_427, "rows": 64},
    {"size": "1.5m", "items": 26_427, "rows": 64},
    {"size": "1.5m", "items": 26_427, "rows": 64, "checkpointing": True},
    {"size": "9m", "items": 26_427, "rows": 32},
    {"size": "9m", "items": 26_427, "rows": 32, "precision": "bf16"},
    {"size": "9m", "items": 26_427, "rows": 32, "checkpointing": True},
    {"size": "9m", "items": 240_320, "rows": 8},
    {"size": "75m", "items": 26_427, "rows": 8},
]


def plan(case: dict[str, Any]) -> tuple[LSRMConfig, Work]:
    """Configuration and work of a case; what it does not name is fp32, Adam, no checkpointing."""
    options = {"precision": "fp32", **{key: value for key, value in case.items() if key not in ("size", "items")}}
    return LSRMConfig.from_size(case["size"], vocab_size=case["items"] + 2), Work(device="cpu", **options)


class PeakMemory:
    """Bytes of this process's peak resident set above what it held when this was made; `bytes()` asks the kernel."""

    def __init__(self) -> None:
        self.before = self._resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak counter starts again from here

    def bytes(self) -> int:
        # The kernel's counters are a few pages off each other: next to nothing must not be less than nothing.
        return max(self._resident("VmHWM") - self.before, 0)

    @staticmethod
    def _resident(field: str) -> int:
        match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert match
        return int(match[1]) * 1024


def train_steps(config: LSRMConfig, work: Work, steps: int, seconds: float = 0.0) -> list[float]:
    """Trains on rows that hold two users each: at least so many steps, and for so long.

    Returns:
        The seconds of every step.
    """
    model = LSRMForCausalLM(config).train()
    if work.checkpointing:
        model.gradient_checkpointing_enable()
    parameters = list(model.parameters())
    if work.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, fused=True, weight_decay=1e-8)
    else:
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-8)
    half = work.width // 2
    positions = torch.cat([torch.arange(half), torch.arange(work.width - half)]).repeat(work.rows, 1)
    times: list[float] = []
    while len(times) < steps or sum(times[1:]) < seconds:
        start = time.perf_counter()
        ids, labels = torch.randint(2, config.vocab_size, (2, work.rows, work.width)).unbind()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=work.precision == "bf16"):
            loss = model(input_ids=ids, position_ids=positions, shift_labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        model.zero_grad()
        times.append(time.perf_counter() - start)
    return times


def measure(case: dict[str, Any]) -> int:
    """Peak bytes of a case in this process, above what the process had before."""
    config, work = plan(case)
    tiny = {**config.to_dict(), "hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2}
    small = Work(rows=2, precision=work.precision, optimizer=work.optimizer, device="cpu")
    train_steps(LSRMConfig(**{**tiny, "num_hidden_layers": 1, "vocab_size": 50}), small, 1)
    memory = PeakMemory()
    train_steps(config, work, STEPS)
    return memory.bytes()


def run(case: dict[str, Any], prefix: list[str], environment: dict[str, str]) -> int:
    """`measure` in a process of its own."""
    command = [*prefix, sys.executable, __file__, "--case", json.dumps(case)]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{result.stderr}")
    return int(result.stdout.split()[-1])


def row(case: dict[str, Any], prefix: list[str]) -> dict[str, Any]:
    """One line of the result."""
    moments = training_memory(*plan(case))
    moment, planned = peak(moments)
    live, default = run(case, prefix, LIVE), run(case, prefix, {})
    return {
        **case,
        "planned_bytes": planned,
        "live_bytes": live,
        "ratio": round(planned / live, 3),
        "default_malloc_bytes": default,
        "ratio_default_malloc": round(planned / default, 3),
        "moment": moment,
        "parts": {part: number for part, number in moments[moment].items() if number},
    }


def main() -> None:
    """Measures all cases and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", default="", help="stands in front of every measured process")
    parser.add_argument("--case", help="measure this one here and print bytes")
    options = parser.parse_args()
    if options.case:
        print(measure(json.loads(options.case)))
        return
    rows = []
    for case in CASES:
        rows.append(row(case, shlex.split(options.prefix)))
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "parts"}), flush=True)
    hardware = {"machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    result = {"hardware": hardware, "commit": source_commit(), "rows": rows}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
