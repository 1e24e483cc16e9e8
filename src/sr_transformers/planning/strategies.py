"""Ways to share a model among devices: what each holds, what its host holds, what it sends in a step, how fast it is.

Bytes per parameter of ZeRO follow its paper (Rajbhandari et al. 2020, section 3: 2 + 2 + 12 in mixed precision), those
of ZeRO with the optimizer on the host ZeRO-Offload's (Ren et al. 2021, section 4); DDP's include the buckets into which
gradients are copied. `table/k` is vocabulary parallelism: k processes have the rows of the item table together, and
read the same batch; such groups stand beside each other as in DDP. With the full softmax each of the k scores its own
items; the blocks are computed by all of them.

Bytes sent are those of ring algorithms: an all-reduce of x bytes over n devices sends 2 (n - 1) / n x from each, a
reduce-scatter or an all-gather half of it.
"""

from dataclasses import dataclass

from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.planning.memory import PRECISIONS, WIDE, Shards, Work, state_bytes, whole_model
from sr_transformers.planning.weights import parameter_counts

SINGLE, DDP, ZERO_1, ZERO_2, ZERO_3, FSDP2 = "single", "ddp", "zero-1", "zero-2", "zero-3", "fsdp2"
ZERO_2_HOST, FSDP2_HOST = "zero-2+host", "fsdp2+host"  # optimizer, or everything, in the memory of the host
TABLE = "table"
_BUCKET = 500_000_000  # numbers of a bucket of DeepSpeed


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
    scored = work.num_negatives + 1 if work.num_negatives else config.vocab_size
    return Flops(blocks, 6.0 * scored * d, attention, again)


def strategies(devices: int, config: LSRMConfig, work: Work) -> tuple[str, ...]:
    """What can be done with so many devices, the simplest first.

    Row updates need whole weights, so neither FSDP nor ZeRO; Muon needs whole matrices, which FSDP gathers and ZeRO
    does not; the counts of `mix` lie whole on every process, so they forbid a divided table.
    """
    muon = work.optimizer == "muon"
    if devices == 1:
        return (SINGLE,) if work.by_rows or muon else (SINGLE, ZERO_2_HOST)
    sharded: tuple[str, ...] = (FSDP2,) if muon else (ZERO_1, ZERO_2, FSDP2, ZERO_3, ZERO_2_HOST, FSDP2_HOST)
    sharded = () if work.by_rows else sharded
    parts = [part for part in (*(2**power for power in range(1, 20)), devices) if devices % part == 0]
    divided = () if config.keeps_counts else tuple(f"{TABLE}/{part}" for part in sorted(set(parts)))
    return (DDP, *sharded, *divided)


def parts_of(strategy: str) -> int:
    """Processes that have the item table together."""
    return int(strategy.partition("/")[2]) if strategy.startswith(f"{TABLE}/") else 1


def shards(strategy: str, config: LSRMConfig, work: Work, devices: int) -> Shards:
    """What a device holds under a strategy.

    Raises:
        ValueError: for a strategy that is not known, or not with so many devices.
    """
    counts = parameter_counts(config)
    total, of_table = sum(counts.values()), counts["item_embedding"]
    compute = PRECISIONS[work.precision]
    outside, of_rows = state_bytes(config, work)
    # Means over all parameters, for strategies that treat them alike.
    state = (outside * (total - of_table) + of_rows * of_table) / total
    layer = (counts["blocks"] + counts["biases_and_norms"]) / config.num_hidden_layers
    tables = of_table + counts["position_embedding"]
    dense = 0.0 if work.by_rows else float(WIDE)
    if strategy == SINGLE:
        return whole_model(config, work)
    if strategy == DDP:
        buckets = WIDE * (total - of_table) + dense * of_table
        return Shards(WIDE, WIDE, outside, (WIDE, dense, of_rows), buckets=buckets)
    if strategy.startswith(f"{TABLE}/") and devices % parts_of(strategy) == 0:
        k = parts_of(strategy)
        buckets = WIDE * (total - of_table) + dense * of_table / k if devices > k else 0.0
        return Shards(WIDE, WIDE, outside, (WIDE / k, dense / k, of_rows / k), k, buckets=buckets)
    # The root's tables stay whole from forward to backward; of the blocks one computes while the next is gathered.
    gathered = compute * (tables + 2 * layer)
    if strategy == FSDP2:
        return Shards(WIDE / devices, WIDE / devices, state / devices, copies=False, gathered=gathered)
    if strategy == FSDP2_HOST:
        return Shards(0.0, 0.0, 0.0, copies=False, gathered=gathered)
    if strategy == ZERO_2_HOST:
        return Shards(compute, 0.0, 0.0, copies=False, buckets=compute * min(total, _BUCKET))
    if strategy in (ZERO_1, ZERO_2, ZERO_3):
        master = WIDE if work.precision == "bf16" else 0  # DeepSpeed keeps float32 weights beside bf16 ones
        whole = strategy == ZERO_3
        weights = compute / devices if whole else compute
        gradients = compute if strategy == ZERO_1 else compute / devices
        states = (state + master) / devices
        return Shards(weights, gradients, states, copies=False, gathered=gathered if whole else 0.0)
    raise ValueError(
        f"strategy {strategy!r} is not known for {devices} devices; choose from "
        f"{', '.join(strategies(devices, config, work))}."
    )


def host_bytes(strategy: str, config: LSRMConfig, work: Work, devices: int) -> float:
    """Bytes that a device needs of its host's memory for weights, gradients and optimizer state."""
    counts = parameter_counts(config)
    total, of_table = sum(counts.values()), counts["item_embedding"]
    outside, of_rows = state_bytes(config, work)
    state = outside * (total - of_table) + of_rows * of_table
    if strategy == ZERO_2_HOST:
        return (total * (WIDE + PRECISIONS[work.precision]) + state) / devices
    return (total * 2 * WIDE + state) / devices if strategy == FSDP2_HOST else 0.0


def traffic(strategy: str, config: LSRMConfig, work: Work, devices: int) -> float:
    """Bytes that a device sends to others in a step of one micro-batch."""
    counts = parameter_counts(config)
    total, of_table = sum(counts.values()), counts["item_embedding"]
    compute, d, P = PRECISIONS[work.precision], config.hidden_size, work.positions

    def half(size: float, among: int) -> float:  # of an all-reduce
        return (among - 1) / among * size

    k = parts_of(strategy)
    copies = devices // k
    rows = (2 * P + work.num_negatives) * (d * WIDE + 8) * (copies - 1) if work.by_rows else 0.0
    shared = total - of_table + (0 if work.by_rows else of_table / k)
    if strategy == SINGLE or devices == 1:
        return 0.0
    if k > 1:
        # Looked-up vectors in forward, gradients of states in backward; three numbers of every target's softmax.
        vectors = P * d * WIDE + (P * d * compute + 3 * P * WIDE if not work.num_negatives else 0)
        vectors += (P + work.num_negatives) * d * WIDE if work.num_negatives else 0
        return 2 * half(vectors, k) + 2 * half(WIDE * shared, copies) + rows
    if strategy == DDP:
        return 2 * half(WIDE * shared, devices) + rows
    if strategy in (ZERO_1, ZERO_2, ZERO_2_HOST):
        return 2 * half(compute * total, devices)
    if strategy == ZERO_3:
        return 3 * half(compute * total, devices)
    blocks = counts["blocks"] + counts["biases_and_norms"]  # gathered again for backward
    return half(compute * (total + blocks) + WIDE * total, devices)


def step(strategy: str, config: LSRMConfig, work: Work, devices: int) -> tuple[float, int]:
    """FLOPs of one device in a micro-batch, and targets of all devices."""
    flops, k = flops_per_target(config, work), parts_of(strategy)
    own = flops.blocks + flops.attention + flops.again + flops.head / (k if not work.num_negatives else 1)
    return own * work.positions, work.positions * (devices // k)
