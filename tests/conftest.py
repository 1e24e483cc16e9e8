"""What all tests share: no network, one thread, and small logs whose truth can be read off by eye."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import polars as pl
import pytest
import torch
from hypothesis import settings
from torch.nn.attention import varlen
from transformers.utils import logging
from varlen_kernel import stand_in

from sr_transformers.columns import ITEM, TIMESTAMP, USER
from sr_transformers.data.logs import synthetic
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData
from sr_transformers.lsrm import varlen_lsrm

torch.set_num_threads(1)
settings.register_profile("here", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("here")

READABLE_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 7)


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
