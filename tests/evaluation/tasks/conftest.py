"""Small logs written as strings, and scorers that are lookup tables: every metric can be computed by hand."""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
import pytest
import torch

from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import encode_items
from sr_transformers.evaluation.tasks.task import TaskOptions

Log = Callable[..., PreparedData]


@pytest.fixture(scope="session")
def log_of(tmp_path_factory) -> Log:
    """`log_of({"anna": "ABC"}, domains={"A": "food"}, ...)`: a letter an item, at the times 0, 1, 2, ..."""

    def make(histories: Mapping[str, str], domains: Mapping[str, str] | None = None, **settings) -> PreparedData:
        rows = [(user, item, n) for user, items in histories.items() for n, item in enumerate(items)]
        frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
        if domains:
            frame = frame.with_columns(domain=pl.col("item_id").replace_strict(domains))
        return prepare(frame, tmp_path_factory.mktemp("log") / "data", **settings)

    return make


class Lookup:
    """Probabilities by the last item shown ("" for any other, or none); remembers what it was shown."""

    gives_log_probabilities = True

    def __init__(self, data: PreparedData, table: Mapping[str, Mapping[str, float]], name: str = "lookup"):
        self.name, self.shown = name, []
        self.rows = {}
        for last, probabilities in table.items():
            row = torch.full((data.vocab_size,), -torch.inf)
            row[encode_items(data.tokenizer, list(probabilities))] = torch.tensor(list(probabilities.values())).log()
            self.rows[encode_items(data.tokenizer, [last])[0] if last else -1] = row

    def score(self, histories):
        self.shown += [history.tolist() for history in histories]
        lasts = [int(history[-1]) if len(history) else -1 for history in histories]
        return torch.stack([self.rows.get(last, self.rows.get(-1)) for last in lasts]).clone()


@pytest.fixture(scope="session")
def lookup() -> type[Lookup]:
    return Lookup


class Successor:
    """The item `ahead` places further in the order of the log's letters, then the ones after it, then the others."""

    gives_log_probabilities = False

    def __init__(self, data: PreparedData, letters: str, ahead: int = 1, name: str = "successor", needs: int = 0):
        self.tokens = np.array(encode_items(data.tokenizer, list(letters)))
        self.place = {int(token): place for place, token in enumerate(self.tokens)}
        self.ahead, self.name, self.needs, self.size = ahead, name, needs, data.vocab_size
        self.shown: list[list[int]] = []

    def score(self, histories):
        self.shown += [history.tolist() for history in histories]
        scores = torch.zeros(len(histories), self.size)
        for row, history in enumerate(histories):
            if len(history) < max(self.needs, 1):
                continue  # all tie: the last rank
            turn = -(self.place.get(int(history[-1]), 0) + self.ahead)
            scores[row, np.roll(self.tokens, turn)] = -torch.arange(len(self.tokens)).float() - 1
        return scores


@pytest.fixture(scope="session")
def successor() -> type[Successor]:
    return Successor


@pytest.fixture
def options() -> TaskOptions:
    """Few draws; seen items stay in the ranking, as in the paper."""
    return TaskOptions(ks=(1, 2), list_length=2, filter_seen=False, draws=50)


def means(report: dict, task: str, metric: str, model: str | None = None) -> dict[str, float]:
    """Means by group."""
    rows = report["tasks"][task]["results"]
    return {
        row["group"]: row["metrics"][metric]["value"]
        for row in rows
        if metric in row["metrics"] and model in (None, row["model"])
    }


@pytest.fixture(scope="session")
def means_of() -> Callable[..., dict[str, float]]:
    return means


@pytest.fixture(scope="session")
def letters() -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
