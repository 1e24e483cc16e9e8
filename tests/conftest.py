"""What all tests share: no network, one thread, and small logs whose truth can be read off by eye."""

import gc
import os
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import polars as pl
import pytest
import torch
from hypothesis import settings
from torch.nn.attention import varlen
from transformers.utils import logging
from varlen_kernel import stand_in
from warm import Warm

from sr_transformers import figures
from sr_transformers.columns import ITEM, TIMESTAMP, USER
from sr_transformers.data.logs import synthetic
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData
from sr_transformers.lsrm import varlen_lsrm

torch.set_num_threads(1)
settings.register_profile("here", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("here")

BLANK = figures.blank
READABLE_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 7)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files come first, so that no worker begins one when the others have ended: whole processes, then files
    with slow tests, then those with the most tests (`make test` keeps this order)."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    number = Counter(item.path for item in items)
    items.sort(key=lambda item: ("integration" not in item.path.parts, item.path not in slow, -number[item.path]))


def pytest_collection_finish() -> None:
    """What was imported stays: a garbage collection, of which every training does one, need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # or libraries in C++ report all of it as lost


@pytest.fixture(scope="session", autouse=True)
def _figures_are_not_drawn():
    """Figures are made, and saved as a few words: drawing those of a tiny run takes longer than the run."""

    def undrawn(width, height):
        figure = BLANK(width, height)
        figure.savefig = lambda path, **options: Path(path).write_text("not drawn")
        return figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "blank", undrawn)
        yield


@pytest.fixture(scope="module")
def drawn(_figures_are_not_drawn):
    """For the files that look at figures: they are drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "blank", BLANK)
        yield


@pytest.fixture(scope="session")
def warm():
    """Runs programs in processes that need no time to start."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture(autouse=True)
def _as_a_user_has_it():
    """transformers speaks as it does by default, whatever a test before has turned off (workers of studies do)."""
    logging.set_verbosity_warning()


@pytest.fixture(scope="session")
def readable_log() -> pl.DataFrame:
    """User "u00", "u01", ... has the items "i0", "i1", ... at the times 0, 1, ...; `READABLE_LENGTHS` says how many.

    Split leave-one-out, the vocabulary is i0 .. i9 and item i{n} is token n + 2. Targets i10 and i11 are unknown.
    """
    rows = [(f"u{user:02}", f"i{n}", n) for user, length in enumerate(READABLE_LENGTHS) for n in range(length)]
    return pl.DataFrame(rows, schema=[USER, ITEM, TIMESTAMP], orient="row")


@pytest.fixture(scope="session")
def prepared(readable_log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The readable log, split leave-one-out."""
    return prepare(readable_log, tmp_path_factory.mktemp("readable") / "data")


@pytest.fixture(scope="session")
def markov_prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A Markov chain over 30 items with 3 successors each, 300 users of 6 to 18 interactions, split leave-one-out."""
    log = synthetic.generate(num_users=300, num_items=30, num_successors=3, mean_length=12)
    return prepare(log, tmp_path_factory.mktemp("markov") / "data")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's variable-length attention on this CPU: a stand-in, and our attention lets it."""
    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    monkeypatch.setattr(varlen_lsrm, "DEVICES", ("cpu",))
