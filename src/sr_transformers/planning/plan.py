"""A training run on paper: memory by part, FLOPs, time at a stated utilisation, and which parallelism fits.

FLOPs count a multiplication and an addition as two, and backward as twice forward:
    blocks     6 N per position
    head       6 V d per target
    attention  12 L d T per position, T the keys that are multiplied: the row's width where a mask tells users apart,
               half of it with a causal variable-length kernel (PaLM, appendix B)
Gradient checkpointing computes the blocks' forward a second time; that costs time and is no useful work.

Bytes per parameter of the strategies: ZeRO's follow its paper (Rajbhandari et al. 2020, section 3: 2 + 2 + 12 in mixed
precision); DDP's include the buckets into which gradients are copied. Time leaves communication out: the utilisation
has to carry it.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.planning.gpus import GPU
from sr_transformers.planning.memory import (
    OPTIMIZERS,
    PRECISIONS,
    WIDE,
    Shards,
    Work,
    parameter_counts,
    peak,
    training_memory,
    whole_model,
)

# Of a GPU's published memory: the rest is for the CUDA context, NCCL's buffers and the allocator's holes. Ours.
USABLE = 0.92
SINGLE, DDP, ZERO_1, ZERO_2, ZERO_3, FSDP2 = "single", "ddp", "zero-1", "zero-2", "zero-3", "fsdp2"


@dataclass(frozen=True)
class Flops:
    """FLOPs per target by part; `again` is what checkpointing computes twice."""

    blocks: float
    head: float
    attention: float
    again: float

    @property
    def useful(self) -> float:
        """What the model needs, however it is computed."""
        return self.blocks + self.head + self.attention

    @property
    def done(self) -> float:
        """What the hardware computes."""
        return self.useful + self.again


def flops_per_target(config: LSRMConfig, work: Work) -> Flops:
    """FLOPs of training on one target, every position having one."""
    N, d, layers = config.num_non_embedding_parameters, config.hidden_size, config.num_hidden_layers
    keys = work.width / 2 if work.attention == "flash" else work.width
    blocks, attention = 6.0 * N, 12.0 * layers * d * keys
    again = (blocks + attention) / 3 if work.checkpointing else 0.0
    return Flops(blocks, 6.0 * config.vocab_size * d, attention, again)


def shards(strategy: str, config: LSRMConfig, work: Work, devices: int) -> Shards:
    """What a device holds under a strategy.

    Raises:
        ValueError: for a strategy that is not known.
    """
    counts = parameter_counts(config)
    total, compute = sum(counts.values()), PRECISIONS[work.precision]
    state = WIDE * OPTIMIZERS[work.optimizer]
    layer = (counts["blocks"] + counts["biases_and_norms"]) / config.num_hidden_layers
    tables = counts["item_embedding"] + counts["position_embedding"]
    if strategy == SINGLE:
        return whole_model(work)
    if strategy == DDP:
        return Shards(WIDE, WIDE, state, buckets=WIDE * total)
    if strategy == FSDP2:
        # The root's tables stay whole from forward to backward; of the blocks one computes while the next is gathered.
        return Shards(WIDE / devices, WIDE / devices, state / devices, False, compute * (tables + 2 * layer))
    if strategy in (ZERO_1, ZERO_2, ZERO_3):
        master = WIDE if work.precision == "bf16" else 0  # DeepSpeed keeps float32 weights beside bf16 ones
        whole = strategy == ZERO_3
        weights = compute / devices if whole else compute
        gradients = compute if strategy == ZERO_1 else compute / devices
        gathered = compute * (tables + 2 * layer) if whole else 0.0
        return Shards(weights, gradients, (state + master) / devices, False, gathered)
    raise ValueError(f"strategy {strategy!r} is not known; choose from {', '.join(strategies(2))}.")


def strategies(devices: int) -> tuple[str, ...]:
    """What can be done with so many devices, the simplest first."""
    return (SINGLE,) if devices == 1 else (DDP, ZERO_1, ZERO_2, FSDP2, ZERO_3)


def make_plan(
    config: LSRMConfig,
    work: Work,
    gpu: GPU | None = None,
    devices: int = 1,
    utilisation: float = 0.4,
    targets: int | None = None,
    epochs: float = 1.0,
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

    Returns:
        A dictionary for JSON. Bytes, FLOPs, seconds; `memory` holds `{moment: {part: bytes}}` with and without
        checkpointing, on one device that holds everything.

    Raises:
        ValueError: for a utilisation, epochs or targets out of range, or bf16 where the hardware has none.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation}; it is a fraction of the peak, above 0 and at most 1.")
    if targets is not None and targets < 1:
        raise ValueError(f"targets is {targets}; give the targets of an epoch, at least 1.")
    if not 0 < epochs < math.inf:
        raise ValueError(f"epochs is {epochs}; it must be a number above 0.")
    if gpu is not None and work.precision == "bf16" and gpu.bf16 is None:
        raise ValueError(f"{gpu.name} has no bf16; choose precision fp32.")
    counts, flops = parameter_counts(config), flops_per_target(config, work)
    other = Work(**{**asdict(work), "checkpointing": not work.checkpointing})
    by_checkpointing = {
        ("with" if one.checkpointing else "without") + " checkpointing": _memory(config, one) for one in (other, work)
    }
    plan: dict[str, Any] = {
        "model": {
            "num_non_embedding_parameters": config.num_non_embedding_parameters,
            "parameters": counts,
            "vocab_size": config.vocab_size,
        },
        "work": asdict(work),
        "memory": by_checkpointing,
        "flops_per_target": {**asdict(flops), "useful": flops.useful, "done": flops.done},
    }
    if targets is not None:
        plan["targets"] = {"per_epoch": targets, "epochs": epochs}
        plan["flops_per_epoch"] = flops.useful * targets
        plan["flops"] = flops.useful * targets * epochs
    if gpu is not None:
        plan["device"] = {**asdict(gpu), "number": devices, "utilisation": utilisation}
        plan["strategies"] = _fits(config, work, gpu, devices)
        plan["time"] = _time(flops, work, gpu, devices, utilisation, targets, epochs)
    return plan


def _memory(config: LSRMConfig, work: Work) -> dict[str, Any]:
    moments = training_memory(config, work)
    moment, size = peak(moments)
    return {"peak_bytes": size, "moment": moment, "moments": moments}


def _fits(config: LSRMConfig, work: Work, gpu: GPU, devices: int) -> list[dict[str, Any]]:
    """A row per strategy, without and with checkpointing."""
    rows = []
    for strategy in strategies(devices):
        for checkpointing in (False, True):
            one = Work(**{**asdict(work), "checkpointing": checkpointing})
            moment, size = peak(training_memory(config, one, shards(strategy, config, one, devices)))
            rows.append(
                {
                    "strategy": strategy,
                    "checkpointing": checkpointing,
                    "bytes_per_device": size,
                    "moment": moment,
                    "fits": size <= USABLE * gpu.memory,
                }
            )
    return rows


def _time(
    flops: Flops, work: Work, gpu: GPU, devices: int, utilisation: float, targets: int | None, epochs: float
) -> dict[str, float]:
    rate = (gpu.bf16 if work.precision == "bf16" else gpu.fp32) or 0.0
    per_second = devices * rate * utilisation / flops.done
    times = {"targets_per_second": per_second, "seconds_per_step": work.positions * devices / per_second}
    if targets is not None:
        times |= {"seconds_per_epoch": targets / per_second, "seconds": targets * epochs / per_second}
    return times
