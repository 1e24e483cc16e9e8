"""What a model with `history` adds to its scores, as a graph can compute it: for every item of the vocabulary at once.

`own_items_lsrm` makes an entry for every interaction, and how many there are depends on the data. Here every user has
an entry for every item, most of which are of items that the user never had and are left out in the end: the shapes
depend on nothing but batch, length and vocabulary. What is added to an entry is computed by the model's own code.
"""

from typing import Any

import torch
from torch import nn

from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID
from sr_transformers.lsrm.configuration_lsrm import LAGS
from sr_transformers.lsrm.history_lsrm import GAIN, successor_cell

_BEYOND = 1 << 30  # more than there are places


def dense_columns(ids: torch.Tensor, times: torch.Tensor | None, vocab_size: int) -> dict[str, torch.Tensor]:
    """As `own_items_lsrm.Pasts.columns`, `(B * V,)` each, of the place after the last interaction alone.

    Args:
        ids: `(B, T)` int64 tokens, oldest first, padded on the left by at least `LAGS` places.
        times: `(B, T)` int64 moments, anything for padding; None where none are read.
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
        relative = (times - times[:, -1:]).float()
        found["time"] = relative.gather(1, last).masked_fill(count == 0, 0.0)
        found["first"] = torch.zeros_like(found["time"]).scatter_reduce(1, ids, relative, "amin")
        found["baskets"] = nothing.scatter_add(1, *_baskets(ids, times, position))
    columns = {name: values.reshape(-1) for name, values in found.items()}
    columns["recent"] = ids.flip(1)[:, :LAGS].t()[:, :, None]
    if times is not None:
        columns["now"] = torch.zeros_like(relative[:, -1:])
    return columns


def _baskets(ids: torch.Tensor, times: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`(B, T)` tokens in another order, and 1 for each that was not in the same basket before, else 0."""
    key = (ids * _BEYOND + position).sort(1).values  # by token, then by position
    token = key // _BEYOND
    order = key - token * _BEYOND
    of_token = times.gather(1, order)
    another = (token[:, 1:] != token[:, :-1]) | (of_token[:, 1:] != of_token[:, :-1])
    return token, nn.functional.pad(another.long(), (1, 0), value=1)


def dense_clock(ids: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """`(B, T, 2)` float32, as `own_items_lsrm.Pasts.clock`, of `dense_columns`'s arguments."""
    batch, length = ids.shape
    position = torch.arange(length, device=ids.device).expand(batch, -1)
    real = ids != PAD_ID
    opens = real[:, 1:] & (~real[:, :-1] | (times[:, 1:] != times[:, :-1]))
    basket = nn.functional.pad(opens.long(), (1, 0)).cumsum(1)  # 0 for padding, then from 1 on
    far = torch.full_like(position, _BEYOND)
    start = far.scatter_reduce(1, basket, position, "amin").gather(1, basket)
    gap = times.gather(1, start) - times.gather(1, (start - 1).clamp(min=0))
    return torch.stack([(position - start + 1).float(), gap.masked_fill(basket <= 1, 0).float()], -1)


class DenseHistory(nn.Module):
    """The scores of `LSRMHistory` after the last interaction.

    Args:
        model: an `LSRMForCausalLM` with `history`.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.history = model.history
        self.vocab_size = model.config.vocab_size
        self.scores_own = bool(self.history.own_parts) or "items" in self.history.parts
        self.successors = "successors" in self.history.parts
        self.tokens: torch.Tensor
        self.counts: torch.Tensor
        if self.successors:
            for name, table in zip(("tokens", "counts"), self._padded(), strict=True):
                self.register_buffer(name, table, persistent=False)

    def _padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`(LAGS, V, K)` int32 successors and how often they came, 0 where there are no more: a graph reads rows of
        equal length."""
        most = max(int(self.history.successor_starts.diff().max()), 1)
        tokens, counts = torch.zeros(2, LAGS, self.vocab_size, most, dtype=torch.int32)
        for lag in range(LAGS):
            items, pairs = self.history.successors_of(torch.arange(self.vocab_size), lag)
            place = pairs - self.history.successor_starts[lag, items]
            tokens[lag, items, place] = self.history.successor_tokens[pairs]
            counts[lag, items, place] = self.history.successor_counts[pairs]
        return tokens, counts

    def forward(self, hidden: torch.Tensor, ids: torch.Tensor, times: torch.Tensor | None) -> torch.Tensor:
        """`(B, V)` to be added to the scores.

        Args:
            hidden: `(B, 1, d)` states after the last interaction.
            ids, times: see `dense_columns`.
        """
        found = hidden.new_zeros(ids.shape[0], self.vocab_size)
        if self.scores_own:
            columns = dense_columns(ids, times, self.vocab_size)
            own = self.history.own(hidden, columns).values
            found = found + own.masked_fill(columns["count"] == 0, 0.0).view(found.shape)
        if self.successors:
            worth = self.history.successor_table(hidden)[:, 0] * GAIN
            for lag in range(LAGS):
                item = ids[:, ids.shape[1] - 1 - lag]
                counts = self.counts[lag][item]
                cell = successor_cell(self.history.successor_totals[lag][item][:, None], counts, lag)
                values = worth.gather(1, cell.long()).masked_fill((counts == 0) | (item < NUM_SPECIAL)[:, None], 0.0)
                found = found.scatter_add(1, self.tokens[lag][item].long(), values)
        return found
