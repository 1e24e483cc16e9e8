"""Memory of a training step by part and by moment, from shapes alone.

A step's memory is largest at one of a few moments; `training_memory` lists what is alive at each of them:

    loss            the end of the loss's forward: all activations, the chunk of logits, both gradients of the loss
    loss backward   the gradients of the loss once more, scaled
    blocks          backward has just begun in the top block: all activations, and that block's own gradients
    end of backward all gradients, and two of the table's size: of the head and of the embedding, about to be added
    optimizer       weights, gradients, optimizer state

What autograd keeps is counted tensor by tensor (tests compare it with what it really keeps, to the byte). Left out:
workspaces of libraries, fragmentation, the batch being prepared, and what `history` computes for a batch (its weights
and tables are counted). It is for rows filled with several users (sdpa with a mask, or flash-attention) and the
optimizers that recipes use. What it refuses: attention dropout on a CPU, whose attention then keeps all weights.
"""

from dataclasses import dataclass

import torch

from sr_transformers.lsrm.attention_lsrm import LONGEST_ROW
from sr_transformers.lsrm.configuration_lsrm import SWIGLU, LSRMConfig
from sr_transformers.lsrm.loss_lsrm import chunk_sizes
from sr_transformers.planning.weights import parameter_counts, popularity_bytes, successor_bytes
from sr_transformers.training.row_updates import DENSE, ROW_ADAGRAD, TABLE_UPDATES

WIDE = 4  # bytes of weights, gradients and the residual stream
# Numbers of optimizer state per parameter (SGD with momentum), and per parameter of the blocks' matrices.
OPTIMIZERS = {"adam": (2, 2), "sgd": (1, 1), "muon": (2, 1)}
PRECISIONS = {"fp32": 4, "bf16": 2}  # bytes of what the matrices multiply
ATTENTIONS = ("sdpa", "flash")


@dataclass(frozen=True)
class Work:
    """What one device does in one micro-batch.

    Attributes:
        rows, width: rows of the batch and places in a row; every place is taken to hold a target.
        precision: "bf16" (autocast over float32 weights) or "fp32".
        optimizer: "adam", "sgd", or "muon": Muon for the matrices of the blocks and Adam for all else.
        attention: "sdpa" or "flash".
        device: "cpu" or "cuda".
        checkpointing: keep only the inputs of blocks and compute the rest again in backward.
        accumulating: gradients of earlier micro-batches are held during forward.
        num_negatives: 0: full softmax. Else: negatives of the sampled softmax.
        table_updates: as the training arguments have it.

    Raises:
        ValueError: for a value that is not one of these, or row updates with the full softmax.
    """

    rows: int = 64
    width: int = 50
    precision: str = "bf16"
    optimizer: str = "adam"
    attention: str = "sdpa"
    device: str = "cuda"
    checkpointing: bool = False
    accumulating: bool = False
    num_negatives: int = 0
    table_updates: str = DENSE

    def __post_init__(self) -> None:
        for name, known in (
            ("precision", PRECISIONS),
            ("optimizer", OPTIMIZERS),
            ("attention", ATTENTIONS),
            ("device", ("cpu", "cuda")),
            ("table_updates", TABLE_UPDATES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(known)}.")
        for name in ("rows", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.num_negatives < 0:
            raise ValueError(f"num_negatives is {self.num_negatives}; it must be at least 0 (0: full softmax).")
        if self.by_rows and not self.num_negatives:
            raise ValueError(
                f"table_updates {self.table_updates} needs num_negatives: the full softmax reads all rows."
            )
        if self.attention == "flash" and (self.device == "cpu" or self.precision == "fp32"):
            raise ValueError("flash-attention runs on GPUs in bf16 only; choose attention sdpa.")

    @property
    def positions(self) -> int:
        """Places in the micro-batch."""
        return self.rows * self.width

    @property
    def by_rows(self) -> bool:
        """Whether gradients and updates of the item table are those of a step's rows."""
        return self.table_updates != DENSE


@dataclass(frozen=True)
class Shards:
    """How many bytes per parameter a device holds all the time, and what it gathers for a while.

    Attributes:
        weights, gradients, optimizer: bytes per parameter outside of the item table.
        table: the same three per parameter of the item table, as if all its rows were held everywhere; None: as all
            else. Gradients that are sparse in rows are not among them.
        divided: processes that have the rows of the item table together.
        copies: whether autocast keeps compute copies of all matrices until backward is through with them.
        gathered: bytes of whole weights that are put together from shards, at most at one time.
        buckets: bytes of communication buffers.
    """

    weights: float
    gradients: float
    optimizer: float
    table: tuple[float, float, float] | None = None
    divided: int = 1
    copies: bool = True
    gathered: float = 0.0
    buckets: float = 0.0


def state_bytes(config: LSRMConfig, work: Work) -> tuple[float, float]:
    """Bytes of optimizer state per parameter outside of the item table, on average, and per parameter of the table."""
    counts = parameter_counts(config)
    all_else = sum(counts.values()) - counts["item_embedding"]
    numbers, of_matrices = OPTIMIZERS[work.optimizer]
    outside = WIDE * (numbers + (of_matrices - numbers) * counts["blocks"] / all_else)
    if not work.by_rows:
        return outside, WIDE * numbers
    if work.optimizer == "sgd":  # without momentum there, which would move all rows
        return outside, 0.0
    return outside, WIDE / config.hidden_size if work.table_updates == ROW_ADAGRAD else WIDE * 2.0


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
    shards = shards or whole_model(config, work)
    counts = parameter_counts(config)
    of_table = counts["item_embedding"]
    all_else = sum(counts.values()) - of_table
    d, compute, P = config.hidden_size, PRECISIONS[work.precision], work.positions
    inner = config.inner_size * (2 if config.hidden_act == SWIGLU else 1)
    masks = WIDE * config.num_attention_heads if config.biases_attention else 1
    narrow = compute != WIDE

    # Layers differ by whether they drop anything out.
    attention, residual = config.layer_dropout("attention_dropout"), config.layer_dropout("residual_dropout")
    kinds = [(rate > 0, other > 0) for rate, other in zip(attention, residual, strict=True)]
    of_kind = {kind: kept_by_block(config, work, kinds.index(kind)) for kind in set(kinds)}
    blocks = [of_kind[kind] for kind in kinds]
    around = kept_around_blocks(config, work)
    inputs = len(blocks) * P * WIDE * d + (0 if work.attention == "flash" else P * work.width * masks)
    activations = around + (inputs if work.checkpointing else sum(blocks))
    again = max(blocks) - P * WIDE * d if work.checkpointing else 0  # one block computed again, but for its input

    copied = (counts["blocks"] + counts["biases_and_norms"]) * compute if narrow and shards.copies else 0
    copied_in_backward = copied // len(blocks) if work.checkpointing else copied
    loss = loss_memory(config, work, shards.divided)
    held_here = shards.table or (shards.weights, shards.gradients, shards.optimizer)
    weights, gradients, optimizer = (
        int(all_else * one + of_table * other)
        for one, other in zip((shards.weights, shards.gradients, shards.optimizer), held_here, strict=True)
    )
    held = gradients if work.accumulating else 0
    always = {"weights": weights, "optimizer": optimizer}
    if successors := successor_bytes(config):
        always["successors"] = successors
    if popularity := popularity_bytes(config):
        always["popularity"] = popularity
    if shards.gathered or shards.buckets:
        always["communication"] = int(shards.gathered + shards.buckets)
    # The tied table gets a gradient from the head and one from the embedding; `gradients` holds their sum's place.
    second_tables = 0 if not config.tie_word_embeddings else 1
    if work.accumulating or held_here[1] * shards.divided != WIDE:
        second_tables += 1
    step_of_block = P * (WIDE * d + compute * d + compute * inner)
    return {
        "loss": {
            **always,
            "gradients": held,
            "compute copies": copied + loss.copies,
            "activations": activations + P * d * (WIDE + (compute if narrow else 0)),
            "logits": loss.logits,
            "loss gradients": loss.gradients,
        },
        "loss backward": {
            **always,
            "gradients": held,
            "compute copies": copied,
            "activations": activations,
            "logits": loss.logits_kept,
            "loss gradients": loss.gradients_in_backward,
        },
        "blocks": {
            **always,
            "gradients": held,
            "compute copies": copied_in_backward,
            "activations": activations + again,
            "loss gradients": loss.table,
            "largest temporary": step_of_block,
        },
        "end of backward": {
            **always,
            "gradients": gradients,
            "activations": around,
            "loss gradients": second_tables * loss.table,
            "largest temporary": P * d * WIDE,
        },
        "optimizer": {
            **always,
            "gradients": gradients + (loss.table if work.by_rows else 0),
            "largest temporary": _optimizer_temporary(config, work, counts, shards),
        },
    }


@dataclass(frozen=True)
class LossMemory:
    """Bytes of the loss and of the table's gradient.

    Attributes:
        copies: of the table in the type that is multiplied, or divided by its length.
        logits: at the end of forward; logits_kept: of them, what backward reads.
        gradients: of states and table at the end of forward; gradients_in_backward: while they are scaled or made.
        table: a gradient of the part of the table that a process has, or of the rows of a step.
    """

    copies: int
    logits: int
    logits_kept: int
    gradients: int
    gradients_in_backward: int
    table: int


def loss_memory(config: LSRMConfig, work: Work, divided: int = 1) -> LossMemory:
    """What the loss takes.

    Args:
        divided: processes that have the table, and so the logits of the full softmax, together.
    """
    d, compute, P, S = config.hidden_size, PRECISIONS[work.precision], work.positions, work.num_negatives
    narrow, normalised = compute != WIDE, config.head == "normalised"
    V = -(-config.vocab_size // divided)
    table, hidden_gradient = V * d * WIDE, P * d * compute
    if not S:
        rows, block = chunk_sizes(V, torch.device(work.device))
        rows, block = min(rows, P), min(block, V)
        logits = rows * V * compute + (rows * block * WIDE if narrow else 0)
        copies = (V * d * compute if narrow else 0) + (table if normalised else 0)
        gradients = table + hidden_gradient
        return LossMemory(copies, logits, 0, gradients, 2 * gradients, table)
    looked_up = (P + S) * (d * compute + 8 + (WIDE * (d + 1) if normalised else 0))  # vectors, and which rows they are
    kept = P * (S + 1) * WIDE + P * S + looked_up + hidden_gradient  # logits, and which of them equal the target
    # While they are made there are the product, the product corrected, and both without what equals the target.
    logits = kept + P * S * (WIDE + (compute if narrow else 0))
    if work.by_rows:
        table = (2 * P + S) * (d * WIDE + 8)
    return LossMemory(0, logits, kept, 0, table + 2 * P * S * WIDE + (P + S) * d * WIDE + hidden_gradient, table)


def peak(moments: dict[str, dict[str, int]]) -> tuple[str, int]:
    """The moment that needs most, and its bytes."""
    name = max(moments, key=lambda one: sum(moments[one].values()))
    return name, sum(moments[name].values())


def whole_model(config: LSRMConfig, work: Work) -> Shards:
    """One device that holds everything."""
    outside, of_table = state_bytes(config, work)
    return Shards(WIDE, WIDE, outside, (WIDE, 0.0 if work.by_rows else WIDE, of_table))


def _optimizer_temporary(config: LSRMConfig, work: Work, counts: dict[str, int], shards: Shards) -> int:
    """Fused Adam needs none. SGD adds the weight decay to a copy of the gradients: one by one on CPUs, else at once.
    Muon makes a matrix of the blocks orthogonal in bf16, one by one. An optimizer of rows has five copies of them."""
    of_rows = 5 * loss_memory(config, work).table if work.by_rows else 0
    if work.optimizer == "adam":
        return of_rows
    if work.optimizer == "muon":
        d, inner = config.hidden_size, config.inner_size
        return max(d * inner * WIDE + 2 * (2 * d * inner + 2 * d * d), of_rows)
    table = 0 if work.by_rows else counts["item_embedding"] / shards.divided
    parts = [*(number for name, number in counts.items() if name != "item_embedding"), table]
    largest = max(parts) if work.device == "cpu" else sum(parts)
    return max(int(largest * shards.gradients), of_rows)
