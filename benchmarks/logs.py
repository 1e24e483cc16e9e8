"""Logs of the benchmarks' shapes, made from a seed: users, catalogue and lengths of known data sets, no rows of theirs.

Half of the interactions follow the item before them by a fixed rule, the other half are drawn by popularity (Zipf), so
that training lowers a loss and two libraries can be compared in it. Every item occurs among the last 50 training
interactions of some user: every library sees the same vocabulary, also those that drop older history first.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WINDOW = 50


@dataclass(frozen=True)
class Shape:
    """Users, items, and lengths: `shortest` and, beyond it, geometric with the given mean, at most ten times that."""

    users: int
    items: int
    mean: int
    shortest: int


SHAPES = {
    "dense": Shape(6_040, 3_416, 167, 20),  # ml-1m: 1.0 M interactions
    "26k": Shape(20_000, 26_427, 60, 5),  # 1.2 M
    "240k": Shape(8_000, 240_320, 60, 5),  # few users, for evaluation and serving
    "20m": Shape(138_493, 26_427, 134, 20),  # MovieLens 20M: 18.5 M
    "240k-short": Shape(130_000, 240_320, 9, 5),  # Amazon 5-core: 1.2 M
    "tiny": Shape(300, 200, 20, 5),  # to try the harness
}


def generate(shape: Shape, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns user_id, item_id, timestamp, int64, by user and time; timestamps count up within a user.

    Raises:
        ValueError: if there is no room for every item.
    """
    rng = np.random.default_rng(seed)
    excess = rng.geometric(1 / (shape.mean - shape.shortest + 1), shape.users) - 1
    lengths = np.minimum(shape.shortest + excess, 10 * shape.mean)
    horizon = int(lengths.max())
    popularity = np.cumsum(1 / np.arange(1, shape.items + 1))
    popularity /= popularity[-1]
    follows = rng.permutation(shape.items)
    order = np.argsort(-lengths)  # users who are still there stand first
    items = np.zeros((shape.users, horizon), np.int32)
    for step in range(horizon):
        present = order[: np.searchsorted(-lengths[order], -step)]
        drawn = np.searchsorted(popularity, rng.random(len(present))).astype(np.int32)
        if step:
            drawn = np.where(rng.random(len(present)) < 0.5, follows[items[present, step - 1]], drawn)
        items[present, step] = drawn
    place = np.arange(horizon)
    recent = (place < lengths[:, None] - 2) & (place >= lengths[:, None] - 2 - WINDOW)
    rows, columns = np.nonzero(recent)
    if len(rows) < shape.items:
        raise ValueError(f"{shape} has {len(rows)} recent training interactions for {shape.items} items; add users.")
    chosen = rng.choice(len(rows), shape.items, replace=False)
    items[rows[chosen], columns[chosen]] = rng.permutation(shape.items)
    users, times = np.nonzero(place < lengths[:, None])
    names = rng.permutation(shape.items)  # ids say nothing about popularity
    return {"user_id": users, "item_id": names[items[users, times]].astype(np.int64), "timestamp": times}


def log_path(name: str, folder: Path) -> Path:
    """The log of a shape as parquet, made on first use."""
    path = folder / f"{name}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        pq.write_table(pa.table(generate(SHAPES[name])), part)
        part.rename(path)
    return path


def targets_per_step(path: Path, sequences: int) -> int:
    """Next-item targets in a mean batch of so many users, of each the last 50 of the training part (leave-one-out)."""
    lengths = np.bincount(pq.read_table(path, columns=["user_id"])["user_id"].to_numpy())
    return max(1, round(sequences * float(np.clip(lengths - 3, 0, WINDOW).mean())))
