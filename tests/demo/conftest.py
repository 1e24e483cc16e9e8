import numpy as np
import polars as pl
import pytest
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM, prepare
from sr_transformers.data.vocabulary import build_tokenizer

ITEMS = [f"item {n}" for n in range(30)]


def make_checkpoint(folder, seed):
    torch.manual_seed(seed)
    config = LSRMConfig(vocab_size=len(ITEMS) + 2, hidden_size=8, max_position_embeddings=6, initializer_range=0.5)
    LSRMForCausalLM(config).save_pretrained(folder)
    build_tokenizer(ITEMS, np.arange(len(ITEMS))).save_pretrained(folder)  # the last one is the best seller
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Two models over "item 0" .. "item 29", of which item n was n times in the training data."""
    folder = tmp_path_factory.mktemp("demo")
    return make_checkpoint(folder / "one", 1), make_checkpoint(folder / "two", 2)


@pytest.fixture(scope="session")
def with_history(tmp_path_factory):
    """A model over the same items that reads moments and scores a user's own items."""
    torch.manual_seed(3)
    parts = ["recency", "items", "baskets", "clock"]
    sizes = {"hidden_size": 8, "max_position_embeddings": 6, "initializer_range": 0.5}
    model = LSRMForCausalLM(LSRMConfig(vocab_size=len(ITEMS) + 2, history=parts, time_unit=10.0, **sizes))
    for parameter in [*model.history.parameters(), *model.model.clock.parameters()]:
        torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp("history") / "history"
    model.save_pretrained(folder)
    build_tokenizer(ITEMS, np.arange(len(ITEMS))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def users(tmp_path_factory):
    """A prepared log: user "u0" .. "u9", where u5 has item 5, 6, 7, 8, 5 at the times 50, 50, 52, 53, 54, and so on."""
    steps, times = (0, 1, 2, 3, 0), (0, 0, 2, 3, 4)
    rows = [(f"u{n}", f"item {n + a}", 10 * n + b) for n in range(10) for a, b in zip(steps, times, strict=True)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(log, tmp_path_factory.mktemp("users") / "data").path


@pytest.fixture(scope="session")
def titles(tmp_path_factory):
    """Titles of the items with even numbers, which lie on three shelves."""
    path = tmp_path_factory.mktemp("titles") / "titles.csv"
    lines = (f"item {n},Title {n},Shelf {n % 3}\n" for n in range(0, 30, 2))
    path.write_text("item_id,title,domain\n" + "".join(lines))
    return path


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A folder with one figure (an SVG needs no library) and something else."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "fits").mkdir()
    (folder / "fits" / "law.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200">'
        '<line x1="20" y1="20" x2="280" y2="180" stroke="blue" stroke-width="4"/></svg>'
    )
    (folder / "fit.json").write_text("{}")
    return folder
