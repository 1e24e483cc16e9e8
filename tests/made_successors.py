"""Successors of items at random, as `data.transitions.successor_table` would have counted them."""

import torch

from sr_transformers.lsrm.configuration_lsrm import LAGS, NUM_SPECIAL


def made_successors(num_items, most):
    """Up to `most` successors of every item, each up to five times, and a few transitions more that are not kept."""
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
        "successor_totals": torch.stack([one.sum() + 3 for one in counts]).view(sizes.shape).int(),
    }
