"""Histories that the page opens with: those of held-out users of a log, or what a model makes up by itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sr_transformers.columns import USER
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL, decode_items, item_counts
from sr_transformers.demo.answers import DemoSession, write_history

MADE_UP = 10  # items of a history that a model makes up
_DRAWN_FROM = 20  # each of its items is drawn from so many likeliest ones


@dataclass(frozen=True)
class Opening:
    """A history that somebody else wrote.

    Attributes:
        text: of the field.
        words: what it is.
        target: raw id of what came next; None: nobody knows.
    """

    text: str
    words: str
    target: str | None = None


class Openings(Protocol):
    """Where histories come from."""

    another: str  # what the button says

    def draw(self) -> Opening:
        """A history, another one each time."""
        ...


class HeldOut:
    """Users of a prepared log, each up to the test target.

    Args:
        path: the prepared folder.
        session: the model, which must know something of the log.
        seed: of the draws.

    Raises:
        FileNotFoundError, ValueError: as `PreparedData` and its `verified`, and for a log of other items, or without
            anybody to show.
    """

    another = "Another user"

    def __init__(self, path: str | Path, session: DemoSession, seed: int | None = None):
        self._data = PreparedData(path).verified()
        self._rows = self._data.targets("test")
        self._with_times = session.recommender.scorer.needs_times
        self._draws = np.random.default_rng(seed)
        known = session.recommender.encode(self._data.item_ids.to_pylist())
        if not len(known):
            raise ValueError(f"{path} has no item that {session.name} knows; give the log that it was trained on.")
        self._someone()

    def draw(self) -> Opening:
        """A user drawn at random."""
        data = self._data
        history, position = self._someone()
        tokens, times = data.items(history, position + 1), data.timestamps(history, position)
        known = tokens[:-1] >= NUM_SPECIAL
        ids = data.item_ids.take(tokens[:-1][known] - NUM_SPECIAL).to_pylist()
        target = data.item_ids[int(tokens[-1]) - NUM_SPECIAL].as_py()
        outside = len(known) - len(ids)
        user = data.histories.data.table[USER][history].as_py()
        words = f"User {user}: {len(ids):,} interactions before the test target"
        if outside:
            words += f" ({outside:,} more with items outside the vocabulary)"
        text = write_history([str(one) for one in ids], times[known].tolist() if self._with_times else None)
        return Opening(text, f"{words}.", str(target))

    def _someone(self) -> tuple[int, int]:
        """History and position of a target drawn from those that have a place in a list, and a past to ask with."""
        for row in self._draws.permutation(len(self._rows)):
            history, position = self._rows[row].tolist()
            known = self._data.items(history, position + 1) >= NUM_SPECIAL
            if known[-1] and known[:-1].any():
                return history, position
        raise ValueError(
            f"{self._data.path} has no test target that the training part has too, with a history before it; leave "
            "--data out, or prepare more of the log."
        )


class MadeUp:
    """What a model writes: a first item drawn by training count, then each time one of the likeliest next ones, drawn
    by probability. Items of the history are left out, or not, as the model was evaluated.

    Args:
        session: the model.
        seed: of the draws.
    """

    another = "Generate another history"

    def __init__(self, session: DemoSession, seed: int | None = None):
        self._session, self._draws = session, np.random.default_rng(seed)
        counts = item_counts(session.recommender.tokenizer)
        total = 0 if counts is None else counts.sum()
        self._first = None if counts is None or not total else counts / total

    def draw(self) -> Opening:
        """A history of at most `MADE_UP` items."""
        recommender = self._session.recommender
        first = self._draws.choice(len(recommender.tokenizer) - NUM_SPECIAL, p=self._first)
        history = decode_items(recommender.tokenizer, [int(first) + NUM_SPECIAL])
        while len(history) < MADE_UP:
            when = 0 if recommender.scorer.query_time else None
            found = recommender.recommend(history, _DRAWN_FROM, times=[0] * len(history), query_time=when)
            chances = np.array([one.probability for one in found])
            if not chances.sum() > 0:  # no item is left
                break
            history.append(found[self._draws.choice(len(found), p=chances / chances.sum())].item)
        words = f"A history that {self._session.name} generated: each item drawn from its {_DRAWN_FROM} likeliest."
        return Opening("\n".join(map(str, history)), words)
