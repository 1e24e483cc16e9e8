"""A seeded synthetic log whose conditional entropy is known exactly: the target that a perfect model reaches.

A first-order Markov chain over V items. From item i the next one is `(i + offset_k) mod V` with probability p_k, for K
distinct offsets; items are then renamed by a permutation. Every row of the transition matrix is a permutation of the
same p, so the entropy of the next item given the history is H(p) = -sum_k p_k log p_k whatever the current item, and
the stationary distribution is uniform.
"""

import numpy as np
import polars as pl

from sr_transformers.columns import ITEM, TIMESTAMP, USER

NUM_USERS = 20_000
NUM_ITEMS = 500
NUM_SUCCESSORS = 8
MEAN_LENGTH = 40


def successor_probabilities(num_successors: int = NUM_SUCCESSORS) -> np.ndarray:
    """p: geometric with ratio 2/3, `(K,)` float64, sums to 1."""
    weights = (2 / 3) ** np.arange(num_successors, dtype=np.float64)
    return weights / weights.sum()


def conditional_entropy(num_successors: int = NUM_SUCCESSORS) -> float:
    """Entropy of the next item given the history, in nats per interaction; exact.

    >>> round(conditional_entropy(1), 6)
    0.0
    """
    p = successor_probabilities(num_successors)
    return float(-(p * np.log(p)).sum()) + 0.0


def generate(
    num_users: int = NUM_USERS,
    num_items: int = NUM_ITEMS,
    num_successors: int = NUM_SUCCESSORS,
    mean_length: int = MEAN_LENGTH,
    seed: int = 0,
) -> pl.DataFrame:
    """Draws a log.

    Lengths are uniform in `[mean_length / 2, 3 mean_length / 2]`; timestamps count 0, 1, ... within a user.

    Returns:
        user_id, item_id, timestamp, int64, `sum of lengths` rows, by user and time.

    Raises:
        ValueError: more successors than items, or a mean length below 2.
    """
    if not 1 <= num_successors <= num_items:
        raise ValueError(f"num_successors {num_successors} must lie in 1..num_items ({num_items}).")
    if mean_length < 2:
        raise ValueError(f"mean_length {mean_length} must be at least 2: one interaction has no next item.")
    rng = np.random.default_rng(seed)
    probabilities = successor_probabilities(num_successors)
    offsets = rng.choice(num_items, size=num_successors, replace=False)
    names = rng.permutation(num_items)
    lengths = rng.integers(mean_length // 2, mean_length + mean_length // 2 + 1, size=num_users)
    # One walk of all users side by side: steps[t] is where everyone moves at time t.
    horizon = int(lengths.max())
    steps = offsets[rng.choice(num_successors, size=(horizon, num_users), p=probabilities)]
    steps[0] = rng.integers(0, num_items, size=num_users)
    states = names[np.cumsum(steps, axis=0) % num_items].T
    present = np.arange(horizon) < lengths[:, None]
    users, times = np.nonzero(present)
    return pl.DataFrame({USER: users, ITEM: states[present], TIMESTAMP: times})
