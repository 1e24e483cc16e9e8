# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""From ids and moments to what a model that reads the past takes beside them.

Whoever trains or serves gives `history`, `clock` and `moments` (`own_items_lsrm.Pasts`). Whoever calls the model as any
other gives ids, and moments if it reads them: what stands in a row is then all that there is.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .configuration_lsrm import LSRMConfig
from .own_items_lsrm import pasts_in, pasts_of_rows


def check_moments(
    config: LSRMConfig, input_ids: torch.Tensor | None, times: torch.Tensor | None, query_times: torch.Tensor | None
) -> None:
    """Refuses moments that the model does not read, and their absence if it does.

    Raises:
        ValueError: with what to give.
    """
    if times is not None and not config.needs_times:
        raise ValueError("times: this model reads no moments; leave them out.")
    if query_times is not None and not config.query_time:
        raise ValueError("query_times: this model is not told when it is asked (query_time); leave them out.")
    if config.needs_times and times is None:
        raise ValueError(
            "this model reads when the interactions happened: pass times, one moment for each of input_ids in the unit "
            "of its log, anything for padding."
        )
    if config.query_time and query_times is None:
        raise ValueError("this model is told when it is asked (query_time): pass query_times, one moment for each row.")
    for name, given, axes in (("times", times, 2), ("query_times", query_times, 1)):
        if given is not None and given.dtype != torch.int64:
            raise ValueError(f"{name} is of {given.dtype}; moments are integers: torch.int64.")
        if given is not None and input_ids is not None and given.shape != input_ids.shape[:axes]:
            raise ValueError(f"{name} has the shape {tuple(given.shape)}; it must be {tuple(input_ids.shape[:axes])}.")


def read_past(
    config: LSRMConfig,
    past: dict[str, Any],
    half_lives: Sequence[float],
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    times: torch.Tensor | None,
    query_times: torch.Tensor | None,
    past_key_values: Any,
) -> dict[str, Any]:
    """What the model reads of the past, where it is not given: of ids that are all that there is.

    Args:
        past: `history`, `clock` and `moments`, or some of them; None for what was not given.
        half_lives: see `Pasts.columns`.
        input_ids, attention_mask, position_ids, times, query_times, past_key_values: see `LSRMForCausalLM.forward`.

    Returns:
        The same names; what the model does not take stays as it is.

    Raises:
        ValueError: without ids, with others in the cache, or as `check_moments`.
    """
    missing = [name for name in config.past_inputs if name in past and past[name] is None]
    if not missing:
        if times is not None or query_times is not None:
            check_moments(config, times if input_ids is None else input_ids, times, query_times)
        return past
    cached = past_key_values is not None and past_key_values.get_seq_length() > 0
    if input_ids is None or cached:
        what = "past_key_values do not hold that" if cached else "inputs_embeds do not say that"
        raise ValueError(
            f"this model reads what users did before, and {what}: pass {', '.join(missing)} too "
            "(own_items_lsrm.pasts_of_rows, of all items so far), or all items at once as input_ids."
        )
    check_moments(config, input_ids, times, query_times)
    made = _of_rows(config, half_lives, input_ids, attention_mask, position_ids, times, query_times)
    return {name: made[name] if name in missing else value for name, value in past.items()}


@torch.compiler.disable  # its sizes depend on the values
def _of_rows(
    config: LSRMConfig, half_lives: Sequence[float], ids: torch.Tensor, *rows: torch.Tensor | None
) -> dict[str, Any]:
    return pasts_in(ids, *rows).inputs(config, ids.shape, half_lives)


def past_so_far(
    config: LSRMConfig,
    half_lives: Sequence[float],
    ids: torch.Tensor,
    mask: torch.Tensor | None,
    width: int,
    keys: int,
    times: torch.Tensor | None,
    query_times: torch.Tensor | None,
) -> dict[str, Any]:
    """What the model reads of the past for the last `width` places of `(B, L)` ids, all of which count.

    Args:
        mask: `(B, L)`, 0 for padding on the left; None: no padding.
        keys: how many of the last places attention sees.
        times: `(B, n)` moments of the first n ids; later ones have that of the request, or else the last of these.
        query_times: `(B,)`, when it is asked what comes after them.

    Raises:
        ValueError: for a mask or moments of more ids than there are.
    """
    for name, given in (("attention_mask", mask), ("times", times)):
        if given is not None and given.shape[1] > ids.shape[1]:
            raise ValueError(
                f"{name} has {given.shape[1]} places for {ids.shape[1]} ids: this model counts in all items, so give "
                "the whole history as input_ids, not only what is new, and leave prefill_chunk_size out."
            )
    real = torch.ones_like(ids) if mask is None else mask
    if times is not None:
        later = (times[:, -1] if query_times is None else query_times)[:, None]
        times = torch.cat([times, later.expand(-1, ids.shape[1] - times.shape[1])], 1)
    found = pasts_of_rows(ids, real != 0, width, width, times, query_times).inputs(
        config, (len(ids), width), half_lives
    )
    if times is not None and "moments" in found:
        found["moments"] = times[:, ids.shape[1] - keys :]
    return found


__all__ = ["check_moments", "past_so_far", "read_past"]
