"""The card of a prepared folder: `load_dataset` finds the tables by name, in one file or several."""

import datasets
import pytest

from sr_transformers import PreparedData, prepare
from sr_transformers.data.manifest import verify


@pytest.mark.parametrize("shards", [1, 3])
def test_load_dataset_finds_the_tables_by_name(readable_log, tmp_path, shards):
    data = prepare(readable_log, tmp_path / "data", shards=shards)

    def load(*name):
        return datasets.load_dataset(str(data.path), *name, split="train", cache_dir=str(tmp_path / "cache"))

    assert load("histories")["user_id"] == load()["user_id"] == list(data.histories["user_id"])
    assert load("histories")["item_ids"] == list(data.histories["item_ids"])
    for split in ("validation", "test"):
        found = load(split)
        assert [[row["history"], row["position"]] for row in found] == data.targets(split).tolist()


def test_it_may_be_changed_or_removed(readable_log, tmp_path):
    data = prepare(readable_log, tmp_path / "data")
    card = data.path / "README.md"
    assert "14 users, 12 items, 88 interactions" in card.read_text()
    card.write_text("mine")
    verify(data.path)
    card.unlink()
    assert PreparedData(data.path).verified().num_targets("test") == data.num_targets("test")
