"""What the workers of quality.py share: train until validation no longer improves, and hand over vectors.

A worker reads the folder that quality.py wrote, trains, and calls `Plateau.epoch` after every epoch. At the end
`Plateau.result` writes `vectors.npz`: what the library would score with, a vector for every user at the validation and
at the test target, and one for every item. Ours then ranks with them. Test targets are not in the folder.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROWS = 256  # users encoded and ranked at a time


class Histories:
    """A log as quality.py writes it; items are numbered from 0.

    Attributes:
        num_items: of the vocabulary.
        train: the training part of every history, oldest first.
        validation, test: what is known of every user before that target.
        targets: `(U,)` the validation targets; -1 outside the vocabulary.
    """

    def __init__(self, folder: str):
        with np.load(Path(folder) / "histories.npz") as arrays:
            self.num_items = int(arrays["num_items"])
            self.targets = arrays["targets"]
            self.train, self.validation, self.test = (
                np.split(arrays[f"{part}_items"], arrays[f"{part}_ends"][:-1])
                for part in ("train", "validation", "test")
            )


class Plateau:
    """Watches a training: validates after every epoch, keeps the best weights, says when it is enough.

    Args:
        settings: `folder` of the log, `output`, `minutes` and `patience` (epochs without a better validation NDCG@10),
            `filter_seen` (whether a user's own items are left out of the ranking).
        module: what is trained; it is set to evaluation and back.
        encode: `(B, d)` vectors of B histories.
        items: `(V, d)` vectors of all items; rows of NaN for items that the library does not know.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        module: torch.nn.Module,
        encode: Callable[[Sequence[np.ndarray]], np.ndarray],
        items: Callable[[], np.ndarray],
    ):
        self.settings, self.module, self.encode, self.items = settings, module, encode, items
        self.histories = Histories(settings["folder"])
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def epoch(self) -> bool:
        """Validates at the end of an epoch; True when training should end."""
        found = self._validate()
        minutes = (time.perf_counter() - self.wall) / 60
        cpu_minutes = (time.process_time() - self.cpu) / 60
        self.curve.append({"epoch": len(self.curve) + 1, "minutes": minutes, "cpu_minutes": cpu_minutes, **found})
        print(json.dumps(self.curve[-1]), flush=True)
        if found["ndcg@10"] >= max(one["ndcg@10"] for one in self.curve):
            self.best = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        return self.waited() >= self.settings["patience"] or cpu_minutes >= self.settings["minutes"]

    def waited(self) -> int:
        """Epochs since the best one."""
        return len(self.curve) - 1 - int(np.argmax([one["ndcg@10"] for one in self.curve]))

    def result(self) -> dict[str, Any]:
        """Writes the vectors of the best epoch; `curve` and whether it was `still_improving` when time was over."""
        self.module.load_state_dict(self.best)
        vectors = {part: self._vectors(getattr(self.histories, part)) for part in ("validation", "test")}
        np.savez(Path(self.settings["output"]) / "vectors.npz", items=self.items(), **vectors)
        return {"curve": self.curve, "still_improving": self.waited() < self.settings["patience"]}

    def _vectors(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        training = self.module.training
        self.module.eval()
        with torch.inference_mode():
            rows = [self.encode(histories[first : first + ROWS]) for first in range(0, len(histories), ROWS)]
        self.module.train(training)
        return np.concatenate(rows)

    def _validate(self) -> dict[str, float]:
        users, items = self._vectors(self.histories.validation), self.items()
        hits = gain = 0.0
        for first in range(0, len(users), ROWS):
            scores = np.nan_to_num(users[first : first + ROWS] @ items.T, nan=-np.inf)
            targets = self.histories.targets[first : first + ROWS]
            for row, target in enumerate(targets):
                if target < 0:
                    continue
                wanted = scores[row, target]
                if self.settings["filter_seen"]:
                    scores[row, self.histories.validation[first + row]] = -np.inf
                    scores[row, target] = wanted
                if (rank := int((scores[row] >= wanted).sum())) <= 10:
                    hits, gain = hits + 1, gain + 1 / np.log2(rank + 1)
        return {"hr@10": hits / len(users), "ndcg@10": float(gain) / len(users)}


def padded(histories: Sequence[np.ndarray], window: int, padding: int) -> torch.Tensor:
    """`(B, window)` int64: the last items of every history, padded on the left."""
    rows = np.full((len(histories), window), padding, np.int64)
    for row, history in enumerate(histories):
        last = history[-window:]
        rows[row, window - len(last) :] = last
    return torch.from_numpy(rows)
