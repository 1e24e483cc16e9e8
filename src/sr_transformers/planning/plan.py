"""A training run on paper: memory by part, FLOPs, time at a stated utilisation, which parallelism fits, and what would.

FLOPs count a multiplication and an addition as two, and backward as twice forward:
    blocks     6 N per position
    head       6 V d per target; 6 (S + 1) d with S sampled negatives
    attention  12 L d T per position, T the keys that are multiplied: the row's width where a mask tells users apart,
               half of it with a causal variable-length kernel (PaLM, appendix B)
Gradient checkpointing computes the blocks' forward a second time; that costs time and is no useful work.

Time leaves communication out unless a bandwidth is given: then what is sent is added as if nothing was computed
meanwhile. Between a device and its host nothing is timed.
"""

import copy
import math
from dataclasses import asdict, replace
from typing import Any

from sr_transformers.evaluation.log_counts import most_stretches
from sr_transformers.lsrm.configuration_lsrm import LAGS, LSRMConfig
from sr_transformers.lsrm.scoring_lsrm import item_range
from sr_transformers.planning.gpus import GPU
from sr_transformers.planning.memory import Work, peak, training_memory
from sr_transformers.planning.strategies import (
    TABLE,
    flops_per_target,
    host_bytes,
    shards,
    step,
    strategies,
    traffic,
)
from sr_transformers.planning.weights import parameter_counts, successor_bytes

# Of a GPU's published memory: the rest is for the CUDA context, NCCL's buffers and the allocator's holes. Ours.
USABLE = 0.92
# Bytes of a pair of items and its number, while the successors are counted: both once more while blocks are joined.
_COUNTED_PAIR = 2 * (8 + 8)


def _check_negatives(config: LSRMConfig, num_negatives: int) -> None:
    """As training does.

    Raises:
        ValueError: for as many negatives as items, or some beside parts of history that score items.
    """
    first, last = item_range(config)
    items = last - first
    if num_negatives >= items:
        raise ValueError(f"num_negatives is {num_negatives:,} and there are {items:,} items; use 0, the full softmax.")
    if num_negatives and config.scoring_parts:
        raise ValueError(
            f"num_negatives is {num_negatives:,}, and sampled softmax knows nothing of the scores of history "
            f"({', '.join(config.scoring_parts)}); leave one of the two out."
        )


def make_plan(
    config: LSRMConfig,
    work: Work,
    gpu: GPU | None = None,
    devices: int = 1,
    utilisation: float = 0.4,
    targets: int | None = None,
    epochs: float = 1.0,
    bandwidth: float | None = None,
) -> dict[str, Any]:
    """Everything about a run that shapes and data sheets say.

    Args:
        config: the model.
        work: what each device does.
        gpu: on what; None: on a CPU, memory and FLOPs only.
        devices: how many.
        utilisation: fraction of the published dense peak at which the FLOPs are computed, in (0, 1].
        targets: of one epoch; None leaves totals out.
        epochs: how many.
        bandwidth: bytes per second that a device sends to others; None: time is that of the FLOPs alone.

    Returns:
        A dictionary for JSON. Bytes, FLOPs, seconds; `memory` holds `{moment: {part: bytes}}` with and without
        checkpointing, on one device that holds everything. `strategies` has a row for each way to share the model,
        `best` is the fastest that fits (None: see `nearest.what_would_fit`), and `time` is that row's.

    Raises:
        ValueError: for a utilisation, epochs, targets or bandwidth out of range, bf16 where the hardware has none, or
            negatives with which training would refuse the model.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation}; it is a fraction of the peak, above 0 and at most 1.")
    if targets is not None and targets < 1:
        raise ValueError(f"targets is {targets}; give the targets of an epoch, at least 1.")
    if not 0 < epochs < math.inf:
        raise ValueError(f"epochs is {epochs}; it must be a number above 0.")
    if bandwidth is not None and not 0 < bandwidth < math.inf:
        raise ValueError(f"bandwidth is {bandwidth}; it must be a number of bytes per second above 0.")
    if gpu is not None and work.precision == "bf16" and gpu.bf16 is None:
        raise ValueError(f"{gpu.name} has no bf16; choose precision fp32.")
    _check_negatives(config, work.num_negatives)
    if config.keeps_counts and targets is not None:  # each makes at most one pair of a lag
        config = copy.deepcopy(config)
        config.successor_pairs = LAGS * min(config.vocab_size * config.num_successors, targets)
        config.mix_stretches = most_stretches(config.vocab_size)
        config.mix_pairs = min(config.vocab_size * config.mix_stretches, targets)
    counts, flops = parameter_counts(config), flops_per_target(config, work)
    other = replace(work, checkpointing=not work.checkpointing)
    by_checkpointing = {
        ("with" if one.checkpointing else "without") + " checkpointing": _memory(config, one) for one in (other, work)
    }
    plan: dict[str, Any] = {
        "model": {
            "num_non_embedding_parameters": config.num_non_embedding_parameters,
            "parameters": counts,
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
        },
        "work": asdict(work),
        "memory": by_checkpointing,
        "flops_per_target": {**asdict(flops), "useful": flops.useful, "done": flops.done},
    }
    if config.keeps_counts:
        plan["successors"] = {"bytes_per_process": successor_bytes(config), "num_successors": config.num_successors}
        if targets is not None:
            plan["successors"]["bytes_while_counted"] = _COUNTED_PAIR * targets
    if targets is not None:
        plan["targets"] = {"per_epoch": targets, "epochs": epochs}
        plan["flops_per_epoch"] = flops.useful * targets
        plan["flops"] = flops.useful * targets * epochs
    if gpu is not None:
        plan["device"] = {**asdict(gpu), "number": devices, "utilisation": utilisation, "bandwidth": bandwidth}
        plan["strategies"] = rows(config, work, gpu, devices, utilisation, bandwidth)
        plan["best"] = best(plan["strategies"])
        if plan["best"] is not None:
            plan["time"] = time_of(plan["best"], targets, epochs)
    return plan


def rows(
    config: LSRMConfig, work: Work, gpu: GPU, devices: int, utilisation: float, bandwidth: float | None = None
) -> list[dict[str, Any]]:
    """A row per strategy, without and with checkpointing; of the ways to divide the table the one with fewest parts
    that fits, or else that with most."""
    found, divided = [], []
    for strategy in strategies(devices, config, work):
        both = [
            row(strategy, config, replace(work, checkpointing=again), gpu, devices, utilisation, bandwidth)
            for again in (False, True)
        ]
        if strategy.startswith(f"{TABLE}/"):
            divided.append(both)
        else:
            found += both
    fitting = [both for both in divided if any(one["fits"] for one in both)]
    return found + (fitting[0] if fitting else divided[-1] if divided else [])


def row(
    strategy: str, config: LSRMConfig, work: Work, gpu: GPU, devices: int, utilisation: float, bandwidth: float | None
) -> dict[str, Any]:
    """One way to share a model: bytes, whether they fit, and time."""
    moment, size = peak(training_memory(config, work, shards(strategy, config, work, devices)))
    flops, targets = step(strategy, config, work, devices)
    rate = (gpu.bf16 if work.precision == "bf16" else gpu.fp32) or 0.0
    sent = traffic(strategy, config, work, devices)
    seconds = flops / (rate * utilisation) + (sent / bandwidth if bandwidth else 0.0)
    return {
        "strategy": strategy,
        "checkpointing": work.checkpointing,
        "bytes_per_device": size,
        "moment": moment,
        "fits": size <= USABLE * gpu.memory,
        "host_bytes_per_device": int(host_bytes(strategy, config, work, devices)),
        "bytes_sent_per_device_and_step": int(sent),
        "seconds_per_step": seconds,
        "targets_per_second": targets / seconds,
    }


def best(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of the rows that fit the fastest, and of equally fast ones that which sends least and is simplest; None if none
    fits."""
    fitting = [one for one in found if one["fits"]]
    order = ("host_bytes_per_device", "bytes_sent_per_device_and_step", "checkpointing")
    return min(fitting, key=lambda one: (-one["targets_per_second"], *(one[key] for key in order)), default=None)


def compare_with_measured(
    strategy: str, config: LSRMConfig, work: Work, devices: int, measured: float, tolerance: float = 0.1
) -> dict[str, Any]:
    """The plan for one device of a run beside what was measured there.

    Args:
        measured: bytes at the run's peak, beyond what the process held before its model was built.
        tolerance: by how much of the measured bytes the planned may be off.

    Returns:
        `planned_bytes`, `measured_bytes`, `ratio` (planned / measured), `within` the tolerance or not, and the `moment`
        of the peak with its `parts`.
    """
    moments = training_memory(config, work, shards(strategy, config, work, devices))
    moment, planned = peak(moments)
    ratio = planned / measured
    return {
        "planned_bytes": planned,
        "measured_bytes": measured,
        "ratio": ratio,
        "within": abs(ratio - 1) <= tolerance,
        "moment": moment,
        "parts": {part: size for part, size in moments[moment].items() if size},
    }


def _memory(config: LSRMConfig, work: Work) -> dict[str, Any]:
    moments = training_memory(config, work)
    moment, size = peak(moments)
    return {"peak_bytes": size, "moment": moment, "moments": moments}


def time_of(found: dict[str, Any], targets: int | None, epochs: float) -> dict[str, float]:
    """Seconds of a row of `rows`, and of all its epochs if their targets are known."""
    times = {key: found[key] for key in ("targets_per_second", "seconds_per_step")}
    if targets is not None:
        an_epoch = targets / found["targets_per_second"]
        times |= {"seconds_per_epoch": an_epoch, "seconds": an_epoch * epochs}
    return times
