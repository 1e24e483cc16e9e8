"""Counts and weights at random for a model with `mix` in its history, as training would have given it."""

import numpy as np
import torch

from sr_transformers.lsrm.configuration_lsrm import LAGS, NUM_SPECIAL
from sr_transformers.lsrm.mix_lsrm import expert_names

WINDOW = 2  # stretches of recent popularity
MOST = 5  # successors of an item


def made_weights(timed):
    """A weight for every expert."""
    names = expert_names(timed)
    return dict(zip(names, np.random.default_rng(3).dirichlet(np.ones(len(names))).tolist(), strict=True))


def made_successors(num_items, most):
    """Up to `most` successors of every item, each up to five times, as `data.transitions.successor_table` would have
    counted them."""
    vocab_size = num_items + NUM_SPECIAL
    sizes = torch.randint(0, most + 1, (LAGS, vocab_size))
    sizes[:, :NUM_SPECIAL] = 0
    tokens = [torch.randperm(num_items)[: int(size)].sort().values + NUM_SPECIAL for size in sizes.reshape(-1)]
    counts = [torch.randint(1, 6, (len(one),)) for one in tokens]
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.reshape(-1).cumsum(0)])
    return {
        "successor_starts": ends.unfold(0, vocab_size + 1, vocab_size).clone(),
        "successor_tokens": torch.cat(tokens).int(),
        "successor_counts": torch.cat(counts).int(),
    }


def fill_mix(model, ends):
    """Gives a model counts, of recent popularity in stretches that end at these moments, and weights."""
    size, timed, rng = model.config.vocab_size, model.config.needs_times, np.random.default_rng(1)
    popularity = torch.from_numpy(rng.integers(1, 9, size)).int()
    popularity[:NUM_SPECIAL] = 0
    tables = {"popularity": popularity, **made_successors(size - NUM_SPECIAL, MOST)}
    if timed:
        table = rng.integers(0, 2, (len(ends), size)) * rng.integers(1, 5, (len(ends), size))
        table[:, :NUM_SPECIAL] = 0
        stretch, token = np.nonzero(table)
        tables |= {
            "recent_ends": torch.tensor(ends),
            "recent_starts": torch.from_numpy(np.searchsorted(stretch, np.arange(len(ends) + 1))),
            "recent_tokens": torch.from_numpy(token).int(),
            "recent_counts": torch.from_numpy(table[stretch, token]).int(),
        }
    model.history.mix.set_counts(tables, WINDOW)
    model.config.mix_share, model.config.mix_weights = 0.3, made_weights(timed)
