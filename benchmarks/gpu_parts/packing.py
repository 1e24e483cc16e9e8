"""Real targets per second of training on histories as short as Amazon's (median 7, a long tail, cut at 50) in four
layouts: one flat row (the best attention of variable length here), rows filled with several users (sdpa with a mask), a
user a row padded to the window, and padded to the longest of a batch of users of like length. The padded ones need no
mask and get sdpa's fastest kernel.
"""

import itertools
import math
import statistics
from typing import Any

import torch

from gpu_parts.common import DEVICE, WINDOW, Training, best_attention, config_of, lay_out, seconds_of

TARGETS = 8192 if DEVICE.type == "cuda" else 64
BATCHES = 4


def lengths_of(number: int, seed: int = 0) -> list[int]:
    """Log-normal lengths in [2, 50] with the median 7 and a mean of about 9."""
    random = torch.Generator().manual_seed(seed)
    drawn = (math.log(7) + 0.7 * torch.randn(number, generator=random)).exp().round().long()
    return drawn.clamp(2, WINDOW).tolist()


def batches_of(layout: str, vocab_size: int) -> tuple[list[dict[str, Any]], int]:
    """The same users in `BATCHES` batches, and their targets."""
    lengths = lengths_of(BATCHES * TARGETS // 9)
    if layout == "grouped":
        lengths.sort()
    cuts = [0]
    total = 0
    for index, length in enumerate(lengths, 1):
        total += length
        if total >= sum(lengths) * len(cuts) / BATCHES:
            cuts.append(index)
    parts = [lengths[first:last] for first, last in itertools.pairwise(cuts)]
    return [lay_out(part, layout, vocab_size, seed) for seed, part in enumerate(parts)], sum(lengths)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One layout at one size."""
    config = config_of(case["size"], case["items"])
    attention = best_attention(config) if case["layout"] == "flat" else "sdpa"
    if case["layout"] == "flat" and attention == "sdpa":
        raise RuntimeError("no attention of variable length runs here")
    batches, targets = batches_of(case["layout"], config.vocab_size)
    training = Training(config, attention)

    def once() -> None:
        for batch in batches:
            training.step(batch)

    second = statistics.median(seconds_of(once, warm_up=1))
    places = sum(batch["input_ids"].numel() for batch in batches)
    return {
        "attention_used": attention,
        "targets_per_second": targets / second,
        "filled": targets / places,
        "step_ms": 1000 * second / len(batches),
    }
