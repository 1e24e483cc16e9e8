"""A file of a data set on the Hub as a log, in the layout of yandex/yambda: lists per user, a file per event."""

import polars as pl
import pytest
from huggingface_hub import HfApi

from sr_transformers import prepare
from sr_transformers.cli import main

ADDRESS = "hf://datasets/org/yambda/sequential/50m/likes.parquet"


@pytest.fixture
def likes(hub, tmp_path):
    """A file of that form, made here, on the loopback Hub."""
    rows = [(user, [3 * n + user for n in range(6)], [5 * n for n in range(6)], [1] * 6) for user in (100, 200, 300)]
    frame = pl.DataFrame(rows, schema=["uid", "item_id", "timestamp", "is_organic"], orient="row")
    frame.write_parquet(tmp_path / "likes.parquet")
    api = HfApi()
    api.create_repo("org/yambda", repo_type="dataset")
    for event in ("likes", "listens"):
        api.upload_file(
            path_or_fileobj=tmp_path / "likes.parquet",
            path_in_repo=f"sequential/50m/{event}.parquet",
            repo_id="org/yambda",
            repo_type="dataset",
        )
    return frame


def test_one_file_is_prepared(likes, tmp_path):
    main(["prepare", ADDRESS, "--user-column", "uid", "--output", str(tmp_path / "out")])
    expected = prepare(likes, tmp_path / "expected", columns={"user_id": "uid"})
    found = prepare(ADDRESS.replace("yambda/", "yambda@main/"), tmp_path / "again", columns={"user_id": "uid"})
    for data in (found, prepare(ADDRESS, tmp_path / "third", columns={"user_id": "uid"})):
        assert data.items_fingerprint == expected.items_fingerprint
        assert data.manifest["counts"] == expected.manifest["counts"]
        assert data.manifest["source"]["name"] == "likes.parquet"
        assert len(data.manifest["source"]["files"][0]["sha256"]) == 64


def test_a_file_that_is_not_there_is_told(likes, hub, tmp_path):
    for address in (ADDRESS.replace("likes", "skips"), ADDRESS.replace("yambda", "nothing")):
        with pytest.raises(FileNotFoundError, match=f"{address}: not on the Hub, or no network to reach it"):
            prepare(address, tmp_path / "out")
