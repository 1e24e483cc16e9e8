"""What a model with `history` adds to its scores, as a graph can compute it: for every item of the vocabulary at once.

`own_items_lsrm` makes an entry for every interaction, and how many there are depends on the data. Here every user has
an entry for every item, most of which are of items that the user never had and are left out in the end: the shapes
depend on nothing but batch, length and vocabulary. What is added to an entry is computed by the model's own code.
"""

import math
from typing import Any

import torch
from torch import nn

from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID
from sr_transformers.lsrm.configuration_lsrm import LAGS
from sr_transformers.lsrm.mix_lsrm import HALF_LIVES, expert_names, mixed_scores
from sr_transformers.lsrm.scoring_lsrm import item_range

BEYOND = 1 << 30  # more than there are places


def dense_columns(
    ids: torch.Tensor, times: torch.Tensor | None, vocab_size: int, query_times: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """As `own_items_lsrm.Pasts.columns`, `(B * V,)` each, of the place after the last interaction alone.

    Args:
        ids: `(B, T)` int64 tokens, oldest first, padded on the left by at least `LAGS` places.
        times: `(B, T)` int64 moments, anything for padding; None where none are read.
        query_times: `(B,)` int64, when it is asked what comes next; None: at the moment of the last interaction.
    """
    batch, length = ids.shape
    position = torch.arange(length, device=ids.device).expand(batch, -1)
    nothing = ids.new_zeros(batch, vocab_size)
    count = nothing.scatter_add(1, ids, torch.ones_like(ids))
    last = nothing.scatter_reduce(1, ids, position, "amax")
    before = ids.gather(1, (last - 1).clamp(min=0))
    line, token = torch.arange(batch, device=ids.device)[:, None], torch.arange(vocab_size, device=ids.device)
    found = {
        "line": line.expand(-1, vocab_size),
        "token": token.expand(batch, -1),
        "place": last - (length - 1),
        "begin": nothing,
        "count": count,
        "before": before.masked_fill(last == 0, 0),
    }
    if times is not None:
        found["time"] = times.gather(1, last)
        found["baskets"] = nothing.scatter_add(1, *_baskets(ids, times, position))
    columns = {name: values.reshape(-1) for name, values in found.items()}
    columns["recent"] = ids.flip(1)[:, :LAGS].t()[:, :, None]
    if times is not None:
        columns["now"] = times[:, -1:] if query_times is None else query_times[:, None]
    return columns


def _baskets(ids: torch.Tensor, times: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`(B, T)` tokens in another order, and 1 for each that was not in the same basket before, else 0."""
    key = (ids * BEYOND + position).sort(1).values  # by token, then by position
    token = key // BEYOND
    order = key - token * BEYOND
    of_token = times.gather(1, order)
    another = (token[:, 1:] != token[:, :-1]) | (of_token[:, 1:] != of_token[:, :-1])
    return token, nn.functional.pad(another.long(), (1, 0), value=1)


def dense_clock(ids: torch.Tensor, times: torch.Tensor, query_times: torch.Tensor | None = None) -> torch.Tensor:
    """`(B, T, 2)` float32, with query_times `(B, T, 3)`, as `own_items_lsrm.Pasts.clock`, of `dense_columns`'s
    arguments."""
    batch, length = ids.shape
    position = torch.arange(length, device=ids.device).expand(batch, -1)
    real = ids != PAD_ID
    opens = real[:, 1:] & (~real[:, :-1] | (times[:, 1:] != times[:, :-1]))
    basket = nn.functional.pad(opens.long(), (1, 0)).cumsum(1)  # 0 for padding, then from 1 on
    far = torch.full_like(position, BEYOND)
    start = far.scatter_reduce(1, basket, position, "amin").gather(1, basket)
    gap = times.gather(1, start) - times.gather(1, (start - 1).clamp(min=0))
    of_places = [(position - start + 1).float(), gap.masked_fill(basket <= 1, 0).float()]
    if query_times is not None:
        of_places.append((torch.cat([times[:, 1:], query_times[:, None]], 1) - times).float())
    return torch.stack(of_places, -1)


class DenseHistory(nn.Module):
    """What `LSRMHistory` makes of the scores after the last interaction.

    Args:
        model: an `LSRMForCausalLM` with `history`.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.history = model.history
        self.vocab_size = model.config.vocab_size
        self.mix = DenseMix(model) if self.history.mixes else None

    def forward(
        self,
        scores: torch.Tensor,
        hidden: torch.Tensor,
        ids: torch.Tensor,
        times: torch.Tensor | None,
        query_times: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`(B, V)` scores, with all that the history does to them.

        Args:
            scores: `(B, V)` of the model without it, lowest for what is no item.
            hidden: `(B, 1, d)` states after the last interaction.
            ids, times, query_times: see `dense_columns`.
        """
        found, columns = scores, dense_columns(ids, times, self.vocab_size, query_times)
        if self.history.config.scoring_parts:
            own = self.history.own(hidden, columns).values
            found = found + own.masked_fill(columns["count"] == 0, 0.0).view(found.shape)
        return found if self.mix is None else self.mix(found, columns, ids)


class DenseMix(nn.Module):
    """What `LSRMMix` makes of the scores after the last interaction.

    Args:
        model: an `LSRMForCausalLM` whose mix has weights.
    """

    def __init__(self, model: Any):
        super().__init__()
        mix, self.timed = model.history.mix, model.config.needs_times
        self.share, self.items = float(model.config.mix_share), item_range(model.config)
        self.weights: torch.Tensor
        self.popularity: torch.Tensor
        self.tokens: torch.Tensor
        self.counts: torch.Tensor
        self.ends: torch.Tensor
        self.recent: torch.Tensor
        weights = [model.config.mix_weights[name] for name in expert_names(self.timed)]
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.register_buffer("popularity", mix.popularity.float(), persistent=False)
        for name, table in zip(("tokens", "counts"), _padded(mix, model.config.vocab_size), strict=True):
            self.register_buffer(name, table, persistent=False)
        if self.timed:
            recent = [mix.recent(ended, model.config.vocab_size) for ended in range(len(mix.recent_ends) + 1)]
            self.register_buffer("ends", mix.recent_ends, persistent=False)
            self.register_buffer("recent", torch.stack(recent), persistent=False)

    def forward(self, scores: torch.Tensor, columns: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
        """`(B, V)` logarithms of the mixed probabilities of scores that are lowest for what is no item.

        Args:
            columns, ids: see `dense_columns`.
        """
        age = torch.arange(ids.shape[1] - 1, -1, -1, device=ids.device).float().expand(ids.shape[0], -1)
        is_item = (torch.arange(scores.shape[1], device=ids.device) >= NUM_SPECIAL).to(scores.dtype)
        nothing = torch.zeros_like(scores)
        chains = []
        for lag in range(LAGS):
            item = ids[:, ids.shape[1] - 1 - lag]
            known = (item >= NUM_SPECIAL)[:, None].to(scores.dtype)
            chains.append(nothing.scatter_add(1, self.tokens[lag][item].long(), self.counts[lag][item] * known))
        own = [nothing.scatter_add(1, ids, torch.exp(age * (-math.log(2.0) / life))) * is_item for life in HALF_LIVES]
        own.append(columns["count"].view(scores.shape) * is_item)
        masses = [*own, *chains, self.popularity.expand(scores.shape)]
        if "now" in columns:
            later = (columns["time"].view(scores.shape) < columns["now"]).to(scores.dtype)
            ended = (self.ends[None] <= columns["now"]).long().sum(1)
            masses = [*own, *[mass * later for mass in own], *chains, self.recent[ended], masses[-1]]
        totals = torch.stack([mass.sum(1) for mass in masses], 1)
        weights = self.weights * (totals > 0)
        factors = weights / weights.sum(1, keepdim=True) / totals.masked_fill(totals == 0, 1.0)
        counted = torch.zeros_like(scores)
        for number, mass in enumerate(masses):
            counted = counted + mass * factors[:, number : number + 1]
        counted = counted.clamp(min=torch.finfo(torch.float32).tiny).log()
        return mixed_scores(scores, counted, self.share, self.items)


def _padded(mix: Any, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`(LAGS, V, K)` int32 successors and how often they came, 0 where there are no more: a graph reads rows of equal
    length."""
    most = max(int(mix.successor_starts.diff().max()), 1)
    tokens, counts = torch.zeros(2, LAGS, vocab_size, most, dtype=torch.int32)
    for lag in range(LAGS):
        items, pairs = mix.successors_of(torch.arange(vocab_size), lag)
        place = pairs - mix.successor_starts[lag, items]
        tokens[lag, items, place] = mix.successor_tokens[pairs]
        counts[lag, items, place] = mix.successor_counts[pairs]
    return tokens, counts
