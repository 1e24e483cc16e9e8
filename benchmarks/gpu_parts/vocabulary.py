"""The most items over which a size still takes training steps (32 rows of 50, Adam, full softmax), searched by halving
between what did and what did not fit; beside it the most that `plan` says."""

import time
from typing import Any

import torch

from gpu_parts.common import (
    DEVICE,
    WINDOW,
    Training,
    best_attention,
    clean,
    config_of,
    is_flat,
    lay_out,
    planned_bytes,
    wait,
)

ROWS = 32
STEP = 0.05  # the search ends when what failed is so little more than what fitted
MOST = None if DEVICE.type == "cuda" else 3000  # a CPU does not run out here: only the way is tried


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One size; ends before its time is over, with what it has found by then."""
    end = time.monotonic() + 0.8 * case["limit"]
    attention = best_attention(config_of(case["size"], 1000))
    memory = torch.cuda.get_device_properties(0).total_memory if DEVICE.type == "cuda" else 0
    planned = _planned(case["size"], attention, memory) if memory else None
    fits, fails, seconds = 0, MOST, 0.0
    tried = planned or 1000
    longest = 0.0
    while time.monotonic() + longest < end:
        start = time.monotonic()
        second = _step(case["size"], tried, attention)
        longest = max(longest, time.monotonic() - start)
        if second is None:
            fails = tried
        else:
            fits, seconds = tried, second
        if fails is not None and fails - fits <= STEP * fails:
            break
        tried = fits * 5 // 4 if fails is None else (fits + fails) // 2
    return {
        "attention_used": attention,
        "largest_items": fits,
        "too_many_items": fails,
        "planned_items": planned,
        "step_ms": 1000 * seconds,
    }


def _planned(size: str, attention: str, memory: int) -> int:
    low, high = 1000, 1 << 30
    while high - low > STEP / 10 * low:
        middle = (low + high) // 2
        fits = planned_bytes(config_of(size, middle), ROWS, attention) <= memory
        low, high = (middle, high) if fits else (low, middle)
    return low


def _step(size: str, items: int, attention: str) -> float | None:
    """Seconds of the last of two steps; None if the memory did not do."""
    clean()
    try:
        config = config_of(size, items)
        training = Training(config, attention)
        batch = lay_out(ROWS * [WINDOW], "flat" if is_flat(attention) else "rows", config.vocab_size)
        training.step(batch)
        wait()
        start = time.perf_counter()
        training.step(batch)
        wait()
        return time.perf_counter() - start
    except torch.OutOfMemoryError:
        return None
