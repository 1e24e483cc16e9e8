import shutil

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from sr_transformers.data.manifest import write_manifest
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import FlatColumn, PreparedData


def check(column: FlatColumn, rows: list[list[int]]) -> None:
    assert column.lengths().tolist() == [len(row) for row in rows]
    for index, row in enumerate(rows):
        for start in range(len(row) + 1):
            assert column.slice(index, start, len(row)).tolist() == row[start:]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_a_column_reads_like_a_list_of_lists_however_it_is_chunked(kind):
    rows = [[1, 2, 3], [], [4], [5, 6], [], [7]]
    whole = pa.array(rows, kind(pa.int32()))
    check(FlatColumn(pa.chunked_array([whole])), rows)
    check(FlatColumn(pa.chunked_array([whole[:2], whole[2:5], whole[5:]])), rows)
    check(FlatColumn(pa.chunked_array([whole[:1], whole[1:2], whole[1:1], whole[2:]])), rows)
    check(FlatColumn(pa.chunked_array([whole[2:4]])), rows[2:4])
    check(FlatColumn(pa.chunked_array([], kind(pa.int32()))), [])


def test_slices_are_views():
    column = FlatColumn(pa.chunked_array([pa.array([[1, 2, 3]], pa.list_(pa.int32()))]))
    assert not column.slice(0, 0, 2).flags.owndata
    assert column.slice(0, 0, 2).dtype == np.int32


def test_long_lists_and_several_record_batches_read_the_same(prepared, tmp_path):
    shutil.copytree(prepared.path, tmp_path / "data")
    table = prepared.histories.data.table
    for name in ("item_ids", "timestamps"):
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].cast(pa.large_list(table[name].type.value_type)))
    path = str(tmp_path / "data" / "histories.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    write_manifest(tmp_path / "data", prepared.manifest)
    data = PreparedData(tmp_path / "data")
    assert data.lengths.tolist() == prepared.lengths.tolist()
    assert data.train_lengths.tolist() == prepared.train_lengths.tolist()
    for history, length in enumerate(data.lengths):
        assert data.items(history, length).tolist() == prepared.items(history, length).tolist()


def test_sizes_and_counts(prepared):
    assert len(prepared) == 14
    assert prepared.vocab_size == 12
    assert prepared.train_lengths.dtype == prepared.lengths.dtype == np.int64
    # i0 is a training item of all 14 users, i1 of all but those of 1 and 3 interactions, ...
    assert prepared.item_counts.tolist() == [0, 0, 14, 11, 9, 8, 7, 5, 4, 3, 2, 1]


def test_items_are_a_stretch_of_a_history(prepared):
    assert prepared.items(11, 5, 2).tolist() == [4, 5, 6]
    assert prepared.items(11, 2, 2).tolist() == []


def test_targets_are_the_held_out_positions(prepared):
    validation, test = prepared.targets("validation"), prepared.targets("test")
    assert validation.dtype == np.int64
    assert validation[:, 0].tolist() == test[:, 0].tolist() == list(range(2, 14))
    assert (validation[:, 1] == prepared.train_lengths[2:]).all()
    assert (test[:, 1] == prepared.lengths[2:] - 1).all()


def test_users_come_back_to_items_in_the_markov_log_only(prepared, markov_prepared):
    assert markov_prepared.has_repeats
    assert not prepared.has_repeats


def test_training_has_no_targets(prepared):
    with pytest.raises(ValueError, match="split 'train' has no targets; choose validation or test"):
        prepared.targets("train")


def test_another_folder_is_refused_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} is not a prepared folder .*--output {tmp_path}"):
        PreparedData(tmp_path)


def test_a_file_that_is_no_arrow_stream_is_named(prepared, tmp_path):
    shutil.copytree(prepared.path, tmp_path / "data")
    for name, opening in (("test.arrow", lambda: PreparedData(tmp_path / "data").targets("test")),
                          ("histories.arrow", lambda: PreparedData(tmp_path / "data"))):  # fmt: skip
        file = tmp_path / "data" / name
        file.write_bytes(b"\x07" * file.stat().st_size)
        with pytest.raises(ValueError, match=rf"data/{name} is damaged: it cannot be read as an Arrow stream .*verify"):
            opening()


@pytest.mark.parametrize("shards", [1, 3])
def test_raw_items_are_those_of_the_log_also_outside_the_vocabulary(tmp_path, shards):
    rows = [(user, f"i{(user * step) % 7 + 4 * (step > 5)}", step) for user in range(20) for step in range(10)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare(log, tmp_path / "data", split="temporal", validation_from="5", test_from="8", shards=shards)
    assert data.manifest["counts"]["interactions_outside_vocabulary"] > 20
    for row, user in enumerate(data.histories["user_id"]):
        for stop in (0, 3, 7, 10):
            assert data.raw_items(row, stop) == [item for who, item, _ in rows if who == user][:stop]
