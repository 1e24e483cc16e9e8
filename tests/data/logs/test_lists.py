"""Logs with a row per user give what the same log with a row per interaction gives."""

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sr_transformers import append, describe, prepare
from sr_transformers.columns import DOMAIN, ITEM, TIMESTAMP, USER

YAMBDA = {"user_id": "uid", "item_id": "item_id", "timestamp": "timestamp"}


def flat():
    """Two users come back to an item; times of the second tie, and the order of the lists must stand."""
    rows = [(3, 30 + n % 7, 5 * n, n % 2) for n in range(9)] + [(1, 40 - n, 100, 1) for n in range(5)]
    rows += [(2, 30 + n, 7 * n, 0) for n in range(4)]
    return pl.DataFrame(rows, schema=["uid", "item_id", "timestamp", "is_organic"], orient="row").cast(
        {"uid": pl.UInt32, "item_id": pl.UInt32, "timestamp": pl.UInt32, "is_organic": pl.UInt8}
    )


def per_user(frame=None):
    """Yambda's `sequential/` form: uid, and lists of timestamp, item_id and is_organic."""
    frame = flat() if frame is None else frame
    return frame.group_by("uid", maintain_order=True).agg("timestamp", "item_id", "is_organic")


def content(data):
    rows = range(len(data))
    return (
        data.histories["user_id"][:],
        [data.items(row, int(data.lengths[row])).tolist() for row in rows],
        [data.timestamps(row, int(data.lengths[row])).tolist() for row in rows],
        data.item_ids.to_pylist(),
        {key: data.manifest["counts"][key] for key in ("rows_read", "interactions", "users", "items")},
    )


@pytest.fixture
def file(tmp_path):
    (tmp_path / "sequential").mkdir()
    per_user().write_parquet(tmp_path / "sequential" / "likes.parquet", row_group_size=2)
    return tmp_path / "sequential" / "likes.parquet"


def test_a_file_of_yambdas_form_is_the_same_log(file, tmp_path):
    found = prepare(file, tmp_path / "lists", columns=YAMBDA)
    expected = prepare(flat(), tmp_path / "flat", columns=YAMBDA)
    assert content(found) == content(expected)
    assert content(found)[2][0] == [100] * 5
    assert found.manifest["source"]["name"] == "likes.parquet"
    assert found.manifest["columns"] == YAMBDA
    assert not [path.name for path in (tmp_path / "lists").iterdir() if path.name.startswith(("interactions", "."))]


@pytest.mark.parametrize("kind", ["polars", "arrow", "datasets", "fixed", "several files"])
def test_so_are_tables_and_several_files(kind, tmp_path):
    frame = per_user()
    source = frame
    if kind == "arrow":
        source = frame.to_arrow()
    elif kind == "datasets":
        source = datasets.Dataset(frame.to_arrow().cast(pa.schema([
            pa.field("uid", pa.uint32()),
            *(pa.field(name, pa.list_(kind)) for name, kind in
              (("timestamp", pa.uint32()), ("item_id", pa.uint32()), ("is_organic", pa.uint8()))),
        ])))  # fmt: skip
    elif kind == "several files":
        (tmp_path / "log").mkdir()
        frame[:1].write_parquet(tmp_path / "log" / "a.parquet")
        frame[1:].write_parquet(tmp_path / "log" / "b.parquet")
        source = tmp_path / "log"
    elif kind == "fixed":
        both = flat().group_by("uid", maintain_order=True).head(4)
        expected = prepare(both, tmp_path / "flat", columns=YAMBDA)
        source = per_user(both).with_columns(pl.col("item_id").list.to_array(4), pl.col("timestamp").list.to_array(4))
        assert content(prepare(source, tmp_path / "lists", columns=YAMBDA)) == content(expected)
        return
    assert content(prepare(source, tmp_path / "lists", columns=YAMBDA)) == content(
        prepare(flat(), tmp_path / "flat", columns=YAMBDA)
    )


def test_domains_may_be_of_the_user_or_of_the_interaction(tmp_path):
    rows = flat().rename({"uid": USER})
    one = rows.with_columns(pl.format("d{}", "is_organic").alias(DOMAIN)).select(USER, ITEM, TIMESTAMP, DOMAIN)
    lists = one.group_by(USER, maintain_order=True).agg(ITEM, TIMESTAMP, DOMAIN)
    found = prepare(lists, tmp_path / "lists")
    assert found.domains(2, 4).tolist() == [0, 1, 0, 1]
    whole = prepare(lists.with_columns(pl.lit("shop").alias(DOMAIN)), tmp_path / "whole")
    assert whole.domain_names == ["shop"]


def test_append_and_describe_read_them_too(file, tmp_path):
    data = prepare(flat(), tmp_path / "old", columns=YAMBDA)
    later = flat().with_columns(pl.col("timestamp") + 1000)
    per_user(later).write_parquet(tmp_path / "new.parquet")
    grown = append(data, tmp_path / "new.parquet", tmp_path / "grown")
    assert grown.manifest["counts"]["interactions"] == 2 * len(flat())
    flat().write_parquet(tmp_path / "flat.parquet")
    found, expected = (describe(one, columns=YAMBDA) for one in (file, tmp_path / "flat.parquet"))
    assert {**found, "name": None} == {**expected, "name": None}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"item_id": [[1], [2, 3]], "timestamp": [[1], [2]]}, "timestamp has another length than item_id in row 2"),
        ({"item_id": [[1], None], "timestamp": [[1], [2]]}, "item_id is missing in row 2"),
        ({"item_id": [[1, 2], [None, 3]], "timestamp": [[1, 2], [2, 3]]},
         "a list of item_id holds nothing in a place, in row 2"),
        ({"item_id": [[1], [2]], "timestamp": [1, 2]}, "item_id is a list and other columns are not"),
        ({"item_id": [1, 2], "timestamp": [[1], [2]]}, "timestamp is a list and other columns are not"),
        ({"uid": [[1], [2]], "item_id": [[1], [2]], "timestamp": [[1], [2]]}, "uid, item_id, timestamp is a list"),
        ({"item_id": [[], []], "timestamp": [[], []]}, "there are no interactions in it"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["file", "table"])
def test_lists_that_are_none_are_refused(rows, message, kind, tmp_path):
    table = pa.table({"uid": [1, 2], **rows})
    pq.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=message) as error:
        prepare(tmp_path / "bad.parquet" if kind == "file" else table, tmp_path / "out", columns=YAMBDA)
    assert "bad.parquet" in str(error.value) or kind == "table"
    assert not (tmp_path / "out").exists()
