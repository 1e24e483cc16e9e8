"""Memory of a training step by part and by moment, from shapes alone.

A step's memory is largest at one of a few moments; `training_memory` lists what is alive at each of them:

    loss            the end of the loss's forward: all activations, the chunk of logits, both gradients of the loss
    loss backward   the gradients of the loss once more, scaled
    blocks          backward has just begun in the top block: all activations, and that block's own gradients
    end of backward all gradients, and two of the table's size: of the head and of the embedding, about to be added
    optimizer       weights, gradients, optimizer state

What autograd keeps is counted tensor by tensor (tests compare it with what it really keeps, to the byte). Left out:
workspaces of libraries, fragmentation, the batch being prepared. It is for rows filled with several users (sdpa with a
mask, or flash-attention), full softmax, the optimizers that recipes use. What it refuses: attention dropout on a CPU,
whose attention then keeps all weights.
"""

from dataclasses import dataclass

import torch

from sr_transformers.lsrm.attention_lsrm import LONGEST_ROW
from sr_transformers.lsrm.biases_lsrm import DISTANCES, TIMES
from sr_transformers.lsrm.configuration_lsrm import SWIGLU, LSRMConfig
from sr_transformers.lsrm.loss_lsrm import chunk_sizes

WIDE = 4  # bytes of weights, gradients and the residual stream
OPTIMIZERS = {"adam": 2, "sgd": 1}  # numbers of optimizer state per parameter (SGD with momentum)
PRECISIONS = {"fp32": 4, "bf16": 2}  # bytes of what the matrices multiply
ATTENTIONS = ("sdpa", "flash")


@dataclass(frozen=True)
class Work:
    """What one device does in one micro-batch.

    Attributes:
        rows, width: rows of the batch and places in a row; every place is taken to hold a target.
        precision: "bf16" (autocast over float32 weights) or "fp32".
        optimizer: "adam" or "sgd".
        attention: "sdpa" or "flash".
        device: "cpu" or "cuda".
        checkpointing: keep only the inputs of blocks and compute the rest again in backward.
        accumulating: gradients of earlier micro-batches are held during forward.

    Raises:
        ValueError: for a value that is not one of these.
    """

    rows: int = 64
    width: int = 50
    precision: str = "bf16"
    optimizer: str = "adam"
    attention: str = "sdpa"
    device: str = "cuda"
    checkpointing: bool = False
    accumulating: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("precision", PRECISIONS),
            ("optimizer", OPTIMIZERS),
            ("attention", ATTENTIONS),
            ("device", ("cpu", "cuda")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(known)}.")
        for name in ("rows", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.attention == "flash" and (self.device == "cpu" or self.precision == "fp32"):
            raise ValueError("flash-attention runs on GPUs in bf16 only; choose attention sdpa.")

    @property
    def positions(self) -> int:
        """Places in the micro-batch."""
        return self.rows * self.width


@dataclass(frozen=True)
class Shards:
    """How many bytes per parameter a device holds all the time, and what it gathers for a while.

    Attributes:
        weights, gradients, optimizer: bytes per parameter.
        copies: whether autocast keeps compute copies of all matrices until backward is through with them.
        gathered: bytes of whole weights that are put together from shards, at most at one time.
        buckets: bytes of communication buffers.
    """

    weights: float
    gradients: float
    optimizer: float
    copies: bool = True
    gathered: float = 0.0
    buckets: float = 0.0


def parameter_counts(config: LSRMConfig) -> dict[str, int]:
    """Parameters by group, as `training.finish.count_parameters` counts them in a built model."""
    d, inner = config.hidden_size, config.inner_size
    norm = d if config.norm == "rms" else 2 * d
    per_layer = 4 * d + inner * (2 if config.hidden_act == SWIGLU else 1) + d + 2 * norm  # attention, feed-forward
    per_layer += 2 * d if config.residual == "gated" else 0
    tables = 1 if config.tie_word_embeddings else 2
    once = norm + (config.head != "plain")
    once += config.num_attention_heads * ((config.position == "relative") * DISTANCES + config.attention_time * TIMES)
    return {
        "blocks": config.num_non_embedding_parameters,
        "biases_and_norms": config.num_hidden_layers * per_layer + once,
        "item_embedding": tables * config.vocab_size * d,
        "position_embedding": config.max_position_embeddings * d if config.position == "learned" else 0,
    }


def kept_by_block(config: LSRMConfig, work: Work, layer: int) -> int:
    """Bytes that autograd keeps of one block, its input included; weights and their compute copies not.

    Raises:
        ValueError: for attention dropout on a CPU, and for biases or pointwise attention with flash.
    """
    d, inner, heads = config.hidden_size, config.inner_size, config.num_attention_heads
    compute = PRECISIONS[work.precision]
    narrow = compute != WIDE
    swiglu, gated = config.hidden_act == SWIGLU, config.residual == "gated"
    if work.device == "cpu" and config.layer_dropout("attention_dropout")[layer]:
        raise ValueError("attention dropout on a CPU keeps all attention weights, which is not planned; set it to 0.")
    if work.attention == "flash" and (config.biases_attention or config.attention == "pointwise"):
        raise ValueError(
            "flash-attention takes no biases (position relative, attention_time) and is never pointwise; choose "
            "attention sdpa."
        )
    # Autocast casts the normed input for q, k and v each on its own.
    normed = 3 * compute * d if narrow else compute * d
    # Kernels of variable length fill heads up to a multiple of 8 numbers.
    width = heads * -(-d // heads // 8) * 8 if work.attention == "flash" else d
    attention = 4 * compute * width  # q, k, v, output
    short = work.device == "cpu" and work.width <= LONGEST_ROW and (narrow or config.biases_attention)
    if config.attention == "pointwise":  # products, weights, and the number of items seen
        attention += heads * work.width * (WIDE + compute) + 8 * (heads if config.biases_attention else 1)
    elif short:
        attention += compute * heads * work.width  # all weights
    else:
        attention += 4 * heads  # the softmax's sums
        masks = heads if config.biases_attention else 1
        attention += 0 if work.attention == "flash" else compute * masks * work.width  # as numbers, in every block
    feed_forward = compute * d * (2 if swiglu and narrow else 1) + (4 if swiglu else 2) * compute * inner
    gates = 2 * compute * d * (3 if narrow else 2) if gated else 0  # gate, what it multiplies, and its input, cast
    # On CPUs dropout keeps what it multiplied by, elsewhere a truth value.
    noise = compute if work.device == "cpu" else 1
    dropped = 2 * noise * d if config.layer_dropout("residual_dropout")[layer] else 0
    residual = 2 * WIDE * d + 2 * _norm(config, work)  # inputs of both norms
    return work.positions * (normed + attention + feed_forward + gates + dropped + residual)


def _norm(config: LSRMConfig, work: Work) -> int:
    """Bytes per position that a norm keeps beside its input: mean and deviation, or the deviation alone. On CPUs
    RMSNorm is made of single operations, and keeps its result before the weight too."""
    if config.norm != "rms":
        return 2 * 4
    return 4 + (WIDE * config.hidden_size if work.device == "cpu" else 0)


def kept_around_blocks(config: LSRMConfig, work: Work) -> int:
    """Bytes that autograd keeps before the first block and after the last, the loss's own gradients not included."""
    d = config.hidden_size
    noise = (WIDE if work.device == "cpu" else 1) * d if config.embedding_dropout else 0
    ids, labels = 8, 8 + 1
    positions = {"learned": 8, "rotary": WIDE * d // config.num_attention_heads, "relative": 0}[config.position]
    # What may not be seen, and the classes of the times and (once) of the distances.
    biases = work.width * (config.biases_attention + 8 * config.attention_time)
    once = 8 * work.width**2 if config.position == "relative" else 0
    head = {"plain": 0, "scaled": WIDE * d, "normalised": 2 * WIDE * d + 2 * 4}[config.head]
    once += {"plain": 0, "scaled": 4, "normalised": 4 + 8 * config.vocab_size}[config.head]
    final_norm = WIDE * d + _norm(config, work)
    return work.positions * (ids + labels + noise + positions + biases + head + final_norm) + once


def training_memory(config: LSRMConfig, work: Work, shards: Shards | None = None) -> dict[str, dict[str, int]]:
    """Bytes alive at each moment, by part.

    Args:
        config: the model.
        work: what one device does.
        shards: what the device holds of weights, gradients and optimizer state; None: all of it.

    Returns:
        `{moment: {part: bytes}}`; the parts of a moment are disjoint. The peak is the largest sum.
    """
    shards = shards or whole_model(work)
    counts = parameter_counts(config)
    total = sum(counts.values())
    d, V, compute, P = config.hidden_size, config.vocab_size, PRECISIONS[work.precision], work.positions
    inner = config.inner_size * (2 if config.hidden_act == SWIGLU else 1)
    masks = WIDE * config.num_attention_heads if config.biases_attention else 1
    layers = range(config.num_hidden_layers)
    narrow = compute != WIDE

    blocks = [kept_by_block(config, work, layer) for layer in layers]
    around = kept_around_blocks(config, work)
    inputs = len(blocks) * P * WIDE * d + (0 if work.attention == "flash" else P * work.width * masks)
    activations = around + (inputs if work.checkpointing else sum(blocks))
    again = max(blocks) - P * WIDE * d if work.checkpointing else 0  # one block computed again, but for its input

    copied = (counts["blocks"] + counts["biases_and_norms"]) * compute if narrow and shards.copies else 0
    copied_in_backward = copied // len(blocks) if work.checkpointing else copied
    rows, block = chunk_sizes(V, torch.device(work.device))
    rows, block = min(rows, P), min(block, V)
    logits = rows * V * compute + (rows * block * WIDE if narrow else 0)
    table = V * d * WIDE  # a gradient of the item embedding
    weights, optimizer = int(total * shards.weights), int(total * shards.optimizer)
    gradients = int(total * shards.gradients)
    held = gradients if work.accumulating else 0
    always = {"weights": weights, "optimizer": optimizer}
    if shards.gathered or shards.buckets:
        always["communication"] = int(shards.gathered + shards.buckets)
    hidden_gradient = P * d * compute
    # The tied table gets a gradient from the head and one from the embedding; `gradients` holds their sum's place.
    second_tables = 0 if not config.tie_word_embeddings else 1
    if work.accumulating or shards.gradients != WIDE:
        second_tables += 1
    step_of_block = P * (WIDE * d + compute * d + compute * inner)
    return {
        "loss": {
            **always,
            "gradients": held,
            "compute copies": copied
            + (V * d * compute if narrow else 0)
            + (table if config.head == "normalised" else 0),
            "activations": activations + P * d * (WIDE + (compute if narrow else 0)),
            "logits": logits,
            "loss gradients": table + hidden_gradient,
        },
        "loss backward": {
            **always,
            "gradients": held,
            "compute copies": copied,
            "activations": activations,
            "loss gradients": 2 * (table + hidden_gradient),
        },
        "blocks": {
            **always,
            "gradients": held,
            "compute copies": copied_in_backward,
            "activations": activations + again,
            "loss gradients": table,
            "largest temporary": step_of_block,
        },
        "end of backward": {
            **always,
            "gradients": gradients,
            "activations": around,
            "loss gradients": second_tables * table,
            "largest temporary": P * d * WIDE,
        },
        "optimizer": {
            **always,
            "gradients": gradients,
            "largest temporary": _optimizer_temporary(work, counts, shards),
        },
    }


def peak(moments: dict[str, dict[str, int]]) -> tuple[str, int]:
    """The moment that needs most, and its bytes."""
    name = max(moments, key=lambda one: sum(moments[one].values()))
    return name, sum(moments[name].values())


def whole_model(work: Work) -> Shards:
    """One device that holds everything."""
    return Shards(WIDE, WIDE, WIDE * OPTIMIZERS[work.optimizer])


def _optimizer_temporary(work: Work, counts: dict[str, int], shards: Shards) -> int:
    """Fused Adam needs none. SGD adds the weight decay to a copy of the gradients: one by one on CPUs, else at once."""
    if work.optimizer == "adam":
        return 0
    largest = max(counts.values()) if work.device == "cpu" else sum(counts.values())
    return int(largest * shards.gradients)
