# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""How states become scores of items, and scores a list: the one way that loss, logits, ranking and recommending share.

Two rules hold wherever items are scored. What is no item (special tokens, rows that only fill up the table) scores as
low as the type goes: its probability is exactly 0 and it has no place. And the head is a module that is called,
whatever became of it (adapters, quantization, hooks, offloading); only where nothing but the product with its vectors
would come out may its weight be read instead (`reads_weight`), which loss and ranking do for their speed.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import _has_any_global_hook
from transformers.utils.generic import maybe_autocast

from .configuration_lsrm import NUM_SPECIAL
from .divided_lsrm import divided_logits, head_division
from .head_lsrm import CosineHead, item_vectors

_GROUP = 16  # items of which only the best can bring its group into the second round of a top k
_SHORT = 256  # numbers of a list of one user's best
_FEW = 1 << 16  # numbers for which two rounds take longer than to do it plainly


def item_range(config: Any) -> tuple[int, int]:
    """The first token that is an item, and the one after the last. All between are items, all others are none.

    Args:
        config: of any model over item tokens. `num_items`, which every configuration may carry, says how many there
            are; without it the whole table is taken for items, special tokens apart.
    """
    num_items = getattr(config, "num_items", None)
    return NUM_SPECIAL, config.vocab_size if num_items is None else NUM_SPECIAL + num_items


def excludes_seen(config: Any) -> bool:
    """Whether items of a user's own history are left out unless a request says otherwise: as the model was validated
    and tested (`filter_seen` of its configuration), True for one that was not."""
    return getattr(config, "filter_seen", None) is not False


def check_tokenizer(num_tokens: int, config: Any) -> None:
    """Refuses a vocabulary with more or fewer items than a model has.

    Raises:
        ValueError: with both numbers and what to do.
    """
    last = item_range(config)[1]
    if num_tokens != last:
        raise ValueError(
            f"the vocabulary has {num_tokens} tokens, the model {last}: load both from the same folder. If the rest of "
            f"the model's table of {config.vocab_size} rows only fills it up, set num_items to "
            f"{num_tokens - NUM_SPECIAL} in its config.json."
        )


def is_plain(module: nn.Module) -> bool:
    """Whether calling a module is running its class's `forward`: no hooks, and no `forward` put in its place."""
    return not (
        "forward" in module.__dict__  # so accelerate loads offloaded weights
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()
    )


def reads_weight(head: Any) -> bool:
    """Whether the product with `head_lsrm.item_vectors` is all that calling the head would do."""
    return (
        type(head) in (nn.Linear, CosineHead)
        and head.bias is None
        and type(head.weight) in (nn.Parameter, torch.Tensor)  # quantized weights are tensors of other classes
        and is_plain(head)
    )


def shares_weight(head: Any) -> bool:
    """Whether the head is a linear one whose weight is spread over processes; its hooks are torch's own then."""
    return isinstance(head, nn.Linear) and head.bias is None and isinstance(head.weight, DTensor)


def spread_weight(head: Any) -> torch.Tensor:
    """The rows of such a head that are to be multiplied here: those of this process if the table is divided
    (`divided_lsrm`), and else all of them, put together."""
    return head.weight.full_tensor() if head_division(head) is None else head.weight.to_local()


def is_gathered(head: Any) -> bool:
    """Whether FSDP has put the weight of a head together for this forward, and nothing but FSDP hangs on it."""
    return (
        isinstance(head, FSDPModule)
        and isinstance(head, (nn.Linear, CosineHead))
        and head.bias is None
        and type(head.weight) is nn.Parameter  # between forwards it is a DTensor
        and len(head._forward_pre_hooks) == len(head._forward_hooks) == 1  # FSDP's own
        and "forward" not in head.__dict__
        and not (head._backward_hooks or head._backward_pre_hooks or _has_any_global_hook())
    )


def wide(dtype: torch.dtype) -> torch.dtype:
    """Scores, softmax and sums are taken in this: float32, or float64 for float64 input."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def score_items(head: Any, hidden: torch.Tensor, items: tuple[int, int]) -> torch.Tensor:
    """Logits `(..., V)` of states `(..., d)`, float32 (float64 for a model in that), lowest for what is no item.

    Also under autocast, and of weights in bf16: rounded logits tie, and ties decide ranks. Only a head whose weight
    cannot be read rounds as it does.

    Args:
        items: `item_range` of the configuration.
    """
    part = head_division(head)
    with maybe_autocast(hidden.device.type, enabled=False):
        if part is not None:
            dtype = wide(head.weight.dtype)
            vectors = item_vectors(head, spread_weight(head).to(dtype))
            logits = divided_logits(hidden.to(dtype), vectors, part, head.weight.shape[0])
        elif reads_weight(head):
            dtype = wide(head.weight.dtype)
            logits = nn.functional.linear(hidden.to(dtype), item_vectors(head, head.weight.to(dtype)))
        else:
            weight = getattr(head, "weight", None)  # a method, or no floating point, where the head is quantized
            if isinstance(weight, torch.Tensor) and weight.is_floating_point():
                hidden = hidden.to(weight.dtype)
            logits = head(hidden)
            logits = logits.to(wide(logits.dtype))
    return only_items(logits, items)


class DivergedError(ValueError):
    """A model's scores are NaN or infinite."""


def refuse_diverged(summaries: torch.Tensor) -> None:
    """Refuses scores of a diverged model: NaN compares false with everything, so it would be ranked first, and beside
    an infinite score no other counts.

    Args:
        summaries: `(B,)`, of every row of scores something that NaN and infinity pass through: the maximum, or the
            logarithm of the sum of exponentials.

    Raises:
        DivergedError: if one is NaN or infinite.
    """
    if bool((torch.isnan(summaries) | torch.isposinf(summaries)).any()):
        raise DivergedError("a score is NaN or infinite: the model has diverged, there is no ranking.")


def only_items(logits: torch.Tensor, items: tuple[int, int], nothing: float | None = None) -> torch.Tensor:
    """Logits `(..., V)` with `nothing` for all tokens that are no item; None: the lowest finite number, of which the
    difference to another model's is a number too."""
    first, last = items
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    lowest = torch.finfo(logits.dtype).min if nothing is None else nothing
    return logits.masked_fill((tokens < first) | (tokens >= last), lowest)


def top_k_items(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`(B, k)` largest scores of every row of `(B, V)`, best first, and their tokens; several times faster than
    `torch.topk` for large V.

    Of equal scores that of the smaller token comes first (`torch.topk` leaves open which): so a list is the same
    wherever it is made.
    """
    more = min(k + 1, scores.shape[1])  # one more shows whether the last place is shared
    values, tokens = _largest(scores, more)
    if values.numel() < _SHORT and values.device.type == "cpu":  # in Python: half the time of two operations
        tied = any(len(set(row)) < more for row in values.tolist())
    else:
        tied = bool((values[:, 1:] == values[:, :-1]).any())
    if not tied:
        return values[:, :k], tokens[:, :k]
    if more > k:
        edge = values[:, k - 1]
        for row in ((edge == values[:, k]) & (edge > -torch.inf)).nonzero()[:, 0].tolist():
            equal = values[row, :k] == edge[row]
            tokens[row, :k][equal] = (scores[row] == edge[row]).nonzero()[: int(equal.sum()), 0]
    values, tokens = values[:, :k], tokens[:, :k]
    by_token = tokens.argsort(1)
    by_score = values.gather(1, by_token).argsort(dim=1, descending=True, stable=True)
    order = by_token.gather(1, by_score)
    return values.gather(1, order), tokens.gather(1, order)


def _largest(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `torch.topk`. An item among the k best stands in one of the k groups with the best maxima, so only those are
    searched."""
    groups = scores.shape[1] // _GROUP
    if groups < 8 * k or scores.numel() < _FEW:
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    # Group j has the items j, j + groups, j + 2 groups, ..: maxima of whole rows are taken, many at a time.
    grouped = scores[:, : groups * _GROUP].unflatten(1, (_GROUP, groups))
    first = grouped.amax(1).topk(k, dim=1, sorted=False).indices
    inside = (first[:, :, None] + groups * torch.arange(_GROUP, device=scores.device)).flatten(1)
    rest = torch.arange(groups * _GROUP, scores.shape[1], device=scores.device).expand(len(scores), -1)
    candidates = torch.cat([inside, rest], dim=1)
    best = scores.gather(1, candidates).topk(k, dim=1)
    return best.values, candidates.gather(1, best.indices)


def input_device(model: Any) -> Any:
    """Where a model takes its inputs; the weights of an offloaded one lie nowhere until they are used."""
    device = model.device
    if device.type != "meta":
        return device
    hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    return torch.device(next((device for device in devices if device is not None), "cpu"))


__all__ = [
    "DivergedError",
    "check_tokenizer",
    "excludes_seen",
    "input_device",
    "is_gathered",
    "is_plain",
    "item_range",
    "only_items",
    "reads_weight",
    "refuse_diverged",
    "score_items",
    "shares_weight",
    "spread_weight",
    "top_k_items",
    "wide",
]
