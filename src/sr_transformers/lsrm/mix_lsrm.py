# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""A model mixed with what counting says.

    p(v) is proportional to p_model(v) ** (1 - s) * m(v) ** s
    m(v) = sum over experts e of w_e p_e(v) / sum over the experts that have something to say of w_e

The experts count: how often the user had an item, an interaction counting by half for every half-life of later ones,
with and without the items of the current basket; what followed the last three items in the training data; popularity of
late, and popularity. The weights w are those of the greatest likelihood of validation targets, and the share s is the
one with which these are ranked best; both are the same for all users. They are fitted when training is over; until
then, and while a model is being trained, it speaks alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .configuration_lsrm import LAGS, NUM_SPECIAL, LSRMConfig
from .scoring_lsrm import only_items

HALF_LIVES = (3.0, 10.0, 30.0, 100.0, 300.0)  # of frequencies, in interactions, and one without end
_OWN = len(HALF_LIVES) + 1


def expert_names(timed: bool) -> list[str]:
    """The experts, in the order of the weights; those that need moments only where these are read."""
    own = [f"own, half-life {life:g}" for life in (*HALF_LIVES, math.inf)]
    outside = [name.replace("own", "own outside the basket") for name in own] if timed else []
    chains = [f"markov, lag {lag}" for lag in range(1, LAGS + 1)]
    return [*own, *outside, *chains, *(["recent popularity"] if timed else []), "popularity"]


class Counted(NamedTuple):
    """Masses of K experts that know the same items.

    Attributes:
        rows, tokens: `(P,)` int64; a row has a token once at most.
        values: `(P, K)`.
    """

    rows: torch.Tensor
    tokens: torch.Tensor
    values: torch.Tensor


class LSRMMix(nn.Module):
    """What counting says of the next item.

    Args:
        config: `mix_share` is s, `mix_weights` has the experts' weights by name, `mix_window` is the window of recent
            popularity in stretches of time; `mix_stretches` and `mix_pairs` say how many stretches, and pairs of a
            stretch and an item, there are, `successor_pairs` how many pairs of an item and what followed it.

    The counts of a stretch lie one item after the other, from `recent_starts[stretch]` to before the next one's. What
    followed an item lies one lag after the other and in it one item after the other, by rising token: that of an item
    from `successor_starts[lag, item]` to before the next item's.

    Raises:
        ValueError: for weights that are not one number, 0 or more, for each expert, or a share out of [0, 1].
    """

    def __init__(self, config: LSRMConfig):
        super().__init__()
        self.config = config
        weights, names = config.mix_weights or {}, expert_names(config.needs_times)
        if weights and (set(weights) != set(names) or not all(0 <= weight < math.inf for weight in weights.values())):
            raise ValueError(f"mix_weights needs a number, 0 or more, for each of {', '.join(names)}.")
        if not 0 <= config.mix_share <= 1:
            raise ValueError(f"mix_share is {config.mix_share}; it lies in [0, 1].")
        stretches, pairs = config.mix_stretches, config.mix_pairs
        self.popularity: torch.Tensor
        self.successor_starts: torch.Tensor
        self.successor_tokens: torch.Tensor
        self.successor_counts: torch.Tensor
        self.recent_ends: torch.Tensor
        self.recent_starts: torch.Tensor
        self.recent_tokens: torch.Tensor
        self.recent_counts: torch.Tensor
        self.register_buffer("popularity", torch.zeros(config.vocab_size, dtype=torch.int32))
        self.register_buffer("successor_starts", torch.zeros(LAGS, config.vocab_size + 1, dtype=torch.int64))
        self.register_buffer("successor_tokens", torch.zeros(config.successor_pairs, dtype=torch.int32))
        self.register_buffer("successor_counts", torch.zeros(config.successor_pairs, dtype=torch.int32))
        if config.needs_times:
            self.register_buffer("recent_ends", torch.zeros(stretches, dtype=torch.int64))
            self.register_buffer("recent_starts", torch.zeros(stretches + 1, dtype=torch.int64))
            self.register_buffer("recent_tokens", torch.zeros(pairs, dtype=torch.int32))
            self.register_buffer("recent_counts", torch.zeros(pairs, dtype=torch.int32))

    @property
    def speaks(self) -> bool:
        """Whether more than the model alone is heard."""
        return bool(self.config.mix_weights) and self.config.mix_share > 0

    def set_counts(self, tables: Mapping[str, torch.Tensor], window: int) -> None:
        """Takes what was counted in the training data (`training.mixing`), and forgets what was fitted."""
        for name, table in tables.items():
            setattr(self, name, table.to(getattr(self, name).device))
        self.config.mix_window, self.config.mix_weights, self.config.mix_share = window, None, 0.0
        self.config.successor_pairs = len(self.successor_tokens)
        if "recent_ends" in tables:
            self.config.mix_stretches, self.config.mix_pairs = len(self.recent_ends), len(self.recent_tokens)

    def successors_of(self, items: torch.Tensor, lag: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The pairs of items, one item after the other: `(P,)` which of the items, and `(P,)` where the pair stands."""
        starts = self.successor_starts[lag]
        begin = starts.index_select(0, items)
        sizes = starts.index_select(0, items + 1) - begin
        first = sizes.cumsum(0) - sizes
        which = torch.repeat_interleave(torch.arange(len(items), device=items.device), sizes)
        pairs = torch.arange(len(which), device=items.device) + (begin - first).index_select(0, which)
        return which, pairs

    def sparse(self, columns: Mapping[str, torch.Tensor], places: torch.Tensor) -> list[Counted]:
        """Experts that know some items, in their order.

        Args:
            columns: of `own_items_lsrm.Pasts` with `HALF_LIVES`.
            places: `(K,)` int64, for which the question is what comes next; a line has K rows from now on.
        """
        own, followers = self._own(columns, places), self._followers(columns, places)
        if not self.config.needs_times:
            return [own, *followers]
        return [own._replace(values=own.values[:, :_OWN]), own._replace(values=own.values[:, _OWN:]), *followers]

    def _followers(self, columns: Mapping[str, torch.Tensor], places: torch.Tensor) -> list[Counted]:
        """What followed the last items in the training data, by lag."""
        found = []
        for lag in range(LAGS):
            items = columns["recent"][lag][:, places].reshape(-1)
            known = (items >= NUM_SPECIAL).nonzero()[:, 0]
            which, pairs = self.successors_of(items[known], lag)
            counts = self.successor_counts[pairs, None].float()
            found.append(Counted(known[which], self.successor_tokens[pairs].long(), counts))
        return found

    def _own(self, columns: Mapping[str, torch.Tensor], places: torch.Tensor) -> Counted:
        begin, end = columns["begin"], columns["end"]
        lives = columns["decayed"].new_tensor(HALF_LIVES)
        rows, tokens, values = [], [], []
        for number, place in enumerate(places.tolist()):
            inside = ((begin <= place) & (place < end)).nonzero()[:, 0]
            line, count = columns["line"][inside], columns["count"][inside, None]
            age = (place - columns["place"][inside, None]).to(lives)
            masses = torch.cat([columns["decayed"][inside] * torch.exp2(-age / lives), count.to(lives)], 1)
            if self.config.needs_times:
                later = columns["now"][line, place] > columns["time"][inside]
                masses = torch.cat([masses, masses * later[:, None]], 1)
            rows.append(line * len(places) + number)
            tokens.append(columns["token"][inside])
            values.append(masses)
        return Counted(torch.cat(rows), torch.cat(tokens), torch.cat(values))

    def dense(
        self, columns: Mapping[str, torch.Tensor], places: torch.Tensor, tokens: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Experts that know every item, in their order: `(R, tokens)` or `(tokens,)` masses, and what they sum to."""
        popularity = self.popularity[:tokens].float()
        found = [(popularity, popularity.sum(dtype=torch.float64))]
        if self.config.needs_times:
            ended = torch.searchsorted(self.recent_ends, columns["now"][:, places].reshape(-1), right=True)
            distinct, which = ended.unique(return_inverse=True)
            recent = torch.stack([self.recent(int(last), tokens) for last in distinct.tolist()])[which]
            found.insert(0, (recent, recent.sum(1, dtype=torch.float64)))
        return found

    def recent(self, last: int, tokens: int) -> torch.Tensor:
        """`(tokens,)` counts within the window of stretches that ends with the `last` one that is over."""
        first = max(last - self.config.mix_window, 0)
        begin, end = int(self.recent_starts[first]), int(self.recent_starts[last])
        counts = self.recent_counts[begin:end].float()
        full = counts.new_zeros(self.config.vocab_size)
        return full.index_add(0, self.recent_tokens[begin:end].long(), counts)[:tokens]

    def probabilities(
        self,
        columns: Mapping[str, torch.Tensor],
        places: torch.Tensor,
        targets: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(R, E)` float64 probabilities that the experts give to the targets `(R,)`, and whether they have anything to
        say."""
        masses, totals = [], []
        for rows, tokens, values in self.sparse(columns, places):
            hit = (tokens == targets[rows]).nonzero()[:, 0]
            nothing = values.new_zeros(len(targets), values.shape[1], dtype=torch.float64)
            masses.append(nothing.index_add(0, rows[hit], values[hit].double()))
            totals.append(nothing.index_add(0, rows, values.double()))
        for table, total in self.dense(columns, places, self.config.vocab_size):
            of_target = table[targets] if table.ndim == 1 else table.gather(1, targets[:, None])[:, 0]
            masses.append(of_target[:, None].double())
            totals.append(total.expand(len(targets))[:, None])
        mass, total = torch.cat(masses, 1), torch.cat(totals, 1)
        return mass / total.masked_fill(total == 0, 1.0), total > 0

    def forward(
        self,
        scores: torch.Tensor,
        columns: Mapping[str, torch.Tensor],
        places: torch.Tensor,
        items: tuple[int, int],
    ) -> torch.Tensor:
        """`(R, V)` logarithms of the mixed probabilities, lowest for what is no item.

        Args:
            scores: `(R, V)` of the model, which may end with the last item; columns, places: see `sparse`.
            items: `scoring_lsrm.item_range`.
        """
        return mixed_scores(scores, self.counted(scores, columns, places), self.config.mix_share, items)

    def counted(self, scores: torch.Tensor, columns: Mapping[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        """`(R, V)` logarithms of what the experts say, in the form of `scores`; anything for what is no item."""
        size, tokens = scores.shape
        sparse, dense = self.sparse(columns, places), self.dense(columns, places, tokens)
        nothing = scores.new_zeros(size, 1, dtype=torch.float64)
        totals = [nothing.expand(-1, values.shape[1]).index_add(0, rows, values.double()) for rows, _, values in sparse]
        total = torch.cat([*totals, *[of_all.expand(size)[:, None] for _, of_all in dense]], 1)
        of_experts: Any = self.config.mix_weights  # by name: a configuration that was saved has another order
        weights = total.new_tensor([of_experts[name] for name in expert_names(self.config.needs_times)]) * (total > 0)
        weights = weights / weights.sum(1, keepdim=True)
        factors = (weights / total.masked_fill(total == 0, 1.0)).to(scores.dtype)
        found, column = torch.zeros_like(scores), 0
        for rows, of_items, values in sparse:
            width = values.shape[1]
            share = (values.to(found.dtype) * factors[rows, column : column + width]).sum(1)
            found.view(-1).index_add_(0, rows * tokens + of_items, share)
            column += width
        for table, _ in dense:
            found.addcmul_(table.to(found.dtype).expand_as(found), factors[:, column : column + 1])
            column += 1
        return found.clamp_(min=torch.finfo(found.dtype).tiny).log_()


def mixed_scores(scores: torch.Tensor, counted: torch.Tensor, share: float, items: tuple[int, int]) -> torch.Tensor:
    """`(R, V)` logarithms of a model's and the counted probabilities together, lowest for what is no item.

    Args:
        scores: `(R, V)` of the model; counted: `(R, V)` logarithms; share: of what was counted, in [0, 1].
        items: `scoring_lsrm.item_range`.
    """
    together = only_items(scores.log_softmax(1) * (1 - share) + counted * share, items)
    return only_items(together - together.logsumexp(1, keepdim=True), items)


def decayed_counts(position: torch.Tensor, group: torch.Tensor, half_lives: Sequence[float]) -> torch.Tensor:
    """`(N, len(half_lives))` float32: how often an item has come up to each of its interactions, itself included, an
    interaction counting by half for every half-life.

    Args:
        position: `(N,)` of interactions in their past, an item's interactions one after the other by rising position.
        group: `(N,)`, where the item's first interaction stands.
    """
    found = torch.ones(len(position), len(half_lives), device=position.device)
    lives = found.new_tensor(half_lives)
    index = torch.arange(len(position), device=position.device)
    most, step = int((index - group).max()) + 1 if len(position) else 0, 1
    while step < most:  # after a round it counts the last 2 * step interactions
        has = (index - step >= group).nonzero()[:, 0]
        gap = (position[has] - position[has - step])[:, None]
        found = found.index_add(0, has, found[has - step] * torch.exp2(-gap / lives))
        step *= 2
    return found


__all__ = ["HALF_LIVES", "Counted", "LSRMMix", "decayed_counts", "expert_names", "mixed_scores"]
