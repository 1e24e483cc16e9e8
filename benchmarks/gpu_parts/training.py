"""Targets per second and model FLOPs utilisation of training steps, with peak memory beside what `plan` says.

Every row of the batch is full and holds two users. FLOPs are those that the model needs however it is computed: 6 N,
6 V d and the attention between an item and what it sees (`planning.plan`), whatever the padding and masks cost.
"""

import contextlib
import statistics
import time
from typing import Any

import torch

from gpu_parts.common import (
    DEVICE,
    WINDOW,
    Training,
    allocated_peak,
    best_attention,
    clean,
    config_of,
    gpu,
    is_flat,
    lay_out,
    planned_bytes,
    seconds_of,
    wait,
)
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.planning.memory import Work
from sr_transformers.planning.plan import flops_per_target

ROWS = (1024, 512, 256, 128, 64, 32, 16, 8)
SHARE = 0.7  # of the device's memory that the plan may take


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One size, catalogue and way of attending; with fewer rows if the plan promised too much."""
    config = config_of(case["size"], case["items"])
    attention = best_attention(config) if case["attention"] == "auto" else case["attention"]
    fitting = fitting_rows(config, attention)
    for rows in fitting:
        clean()
        with contextlib.suppress(torch.OutOfMemoryError):
            return {"rows_planned": fitting[0], **_measure(config, attention, rows, case["compiled"])}
    raise RuntimeError(f"no number of rows fits, of {fitting or ROWS}")


def fitting_rows(config: LSRMConfig, attention: str) -> list[int]:
    """Rows that the plan fits into the memory, the most first."""
    if DEVICE.type != "cuda":
        return [4]
    most = SHARE * torch.cuda.get_device_properties(0).total_memory
    return [rows for rows in ROWS if planned_bytes(config, rows, attention) <= most]


def _measure(config: LSRMConfig, attention: str, rows: int, compiled: bool) -> dict[str, Any]:
    lengths = rows * [20, WINDOW - 20]
    batch = lay_out(lengths, "flat" if is_flat(attention) else "rows", config.vocab_size)
    start = time.perf_counter()
    training = Training(config, attention, compiled)
    training.step(batch)
    wait()
    first = time.perf_counter() - start
    times = seconds_of(lambda: training.step(batch))
    second = statistics.median(times)
    # The mean length of a user as an item of it sees it: half of them come before the item.
    width = sum(length**2 for length in lengths) // sum(lengths)
    rate = flops_per_target(config, Work(1, width, attention="flash")).useful * sum(lengths) / second
    known, planned = gpu(), planned_bytes(config, rows, attention)
    taken = allocated_peak()
    return {
        "attention_used": attention,
        "rows": rows,
        "targets": sum(lengths),
        "step_ms": 1000 * second,
        "slowest_step_ms": 1000 * max(times),
        "steps": len(times),
        "first_step_s": first,
        "targets_per_second": sum(lengths) / second,
        "tflops": rate / 1e12,
        "mfu": None if known is None or known.bf16 is None else rate / known.bf16,
        "peak_bytes": taken,
        "planned_bytes": planned,
        "planned_over_peak": None if taken is None else planned / taken,
    }
