"""Prepared folders that were damaged, changed, or are none."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
from bad_inputs.row import Damage, Row, both, cut, drop_keys, edit, edit_json, flip, remove, set_keys, write

TRAIN = "train RECIPE --data d --output o"
EVALUATE = "evaluate --data d --model RUN"
APPEND = "data append d new.csv --output o"
_NEW = write("new.csv", "user_id,item_id,timestamp\nu1,i1,100\nu2,i2,101\n")


def _histories(change) -> Damage:
    """Changes columns of histories.arrow."""

    def damage(here):
        with pa.memory_map(str(here / "d" / "histories.arrow")) as file:
            columns = pa.ipc.open_stream(file).read_all().to_pydict()
            schema = pa.ipc.open_stream(here / "d" / "histories.arrow").schema
        change(columns)
        with pa.ipc.new_stream(str(here / "d" / "histories.arrow"), schema) as writer:
            writer.write_table(pa.table(columns, schema=schema))

    return damage


def _first_item(value: int) -> Damage:
    return _histories(lambda columns: columns["item_ids"][0].__setitem__(0, value))


def _lengths(value: int) -> Damage:
    return _histories(lambda columns: columns["train_length"].__setitem__(slice(None), [value] * 60))


def _shuffled(here) -> None:
    path = here / "d" / "items.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(table.num_rows))[::-1]), path)


def _pipe(name: str) -> Damage:
    def damage(here):
        (here / name).unlink()
        os.mkfifo(here / name)

    return damage


def _replaced_by_folder(name: str) -> Damage:
    def damage(here):
        (here / name).unlink()
        (here / name).mkdir()

    return damage


def _of_s3rec(here) -> None:
    """p becomes a log that was prepared by a named protocol."""
    from sr_transformers.data.prepare import prepare

    lines = [f"u{user},i{(user * 7 + step * step) % 40},{step + 1}" for user in range(60) for step in range(12)]
    (here / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    prepare(str(here / "log.csv"), here / "p", protocol="s3rec")


MANIFEST = r"manifest\.json"
ROWS = [
    Row("C001", "histories.arrow is missing", TRAIN, r"histories\.arrow", remove("d/histories.arrow")),
    Row("C002", "test.arrow is missing", EVALUATE, r"test\.arrow", remove("d/test.arrow")),
    Row("C003", "histories.arrow is empty", TRAIN, r"histories\.arrow", write("d/histories.arrow", "")),
    Row("C004", "histories.arrow is cut", TRAIN, r"histories\.arrow", cut("d/histories.arrow")),
    Row("C005", "test.arrow is cut", EVALUATE, r"test\.arrow", cut("d/test.arrow")),
    Row("C006", "validation.arrow is cut", TRAIN, r"validation\.arrow", cut("d/validation.arrow")),
    Row("C007", "histories.arrow is text", TRAIN, r"histories\.arrow", write("d/histories.arrow", "hello\n" * 100)),
    Row("C008", "histories.arrow has more at its end", TRAIN, r"histories\.arrow",
        edit("d/histories.arrow", lambda content: content + b"more")),
    Row("C011", "histories.arrow: bytes flipped, evaluated", EVALUATE, r"histories\.arrow", flip("d/histories.arrow", 0.5, 2)),
    Row("C012", "histories.arrow: bytes flipped, trained", TRAIN, r"histories\.arrow", flip("d/histories.arrow")),
    Row("C013", "manifest is missing", TRAIN, "not a prepared folder", remove("d/manifest.json")),
    Row("C014", "manifest is cut", EVALUATE, MANIFEST, cut("d/manifest.json")),
    Row("C015", "manifest is empty", EVALUATE, MANIFEST, write("d/manifest.json", "")),
    Row("C016", "manifest is a list", EVALUATE, MANIFEST, write("d/manifest.json", "[]")),
    Row("C017", "manifest is not UTF-8", EVALUATE, MANIFEST, write("d/manifest.json", b"\xff\xfe{}")),
    Row("C018", "manifest without counts, evaluated", EVALUATE, MANIFEST, drop_keys("d/manifest.json", "counts")),
    Row("C019", "manifest without counts, trained", TRAIN, MANIFEST, drop_keys("d/manifest.json", "counts")),
    Row("C020", "manifest without repeat_share", EVALUATE, MANIFEST, drop_keys("d/manifest.json", "counts.repeat_share")),
    Row("C021", "manifest without split", EVALUATE, MANIFEST, drop_keys("d/manifest.json", "split")),
    Row("C022", "manifest of another format", EVALUATE, f"{MANIFEST}.*format", set_keys("d/manifest.json", format=99)),
    Row("C023", "manifest without filters", APPEND, MANIFEST, both(_NEW, drop_keys("d/manifest.json", "filters"))),
    Row("C024", "manifest nested deeply", EVALUATE, MANIFEST, write("d/manifest.json", '{"a":' * 50000)),
    Row("C025", "manifest is null", EVALUATE, MANIFEST, write("d/manifest.json", "null")),
    Row("C026", "manifest is a folder", EVALUATE, "not a prepared folder", _replaced_by_folder("d/manifest.json")),
    Row("C027", "items_in_vocabulary is a text", TRAIN, MANIFEST,
        edit_json("d/manifest.json", lambda one: one["counts"].update(items_in_vocabulary="many"))),
    Row("C028", "items_in_vocabulary 10^12", TRAIN, MANIFEST,
        edit_json("d/manifest.json", lambda one: one["counts"].update(items_in_vocabulary=10**12))),
    Row("C029", "items_in_vocabulary 10^8", TRAIN, MANIFEST,
        edit_json("d/manifest.json", lambda one: one["counts"].update(items_in_vocabulary=10**8))),
    Row("C030", "items_in_vocabulary 500", TRAIN, MANIFEST,
        edit_json("d/manifest.json", lambda one: one["counts"].update(items_in_vocabulary=500))),
    Row("C038", "shard_bounds wrong", TRAIN, MANIFEST, set_keys("d/manifest.json", shard_bounds=[0, 7, 60], shards=2)),
    Row("N180", "another k than the protocol's", "evaluate --data p --k 3", "protocol s3rec, whose cut-offs are 5, 10, 20", _of_s3rec),
    Row("N181", "seen items kept, the protocol removes them", "evaluate --data p --seen keep", "protocol s3rec, which leaves seen", _of_s3rec),
    Row("N182", "another target than the protocol's", "evaluate --data p --target period", "protocol s3rec, whose target is 'item'", _of_s3rec),
    Row("N183", "trained otherwise than the protocol", "train RECIPE --data p --output o --filter_seen false", "protocol s3rec, which leaves seen", _of_s3rec),
    Row("N184", "tasks otherwise than the protocol", "tasks --data p --task overall --seen keep", "protocol s3rec, which leaves seen", _of_s3rec),
    Row("N185", "compared otherwise than the protocol", "compare RUN m --data p --k 3", "protocol s3rec, whose cut-offs are", _of_s3rec),
    Row("N186", "a folder of an older version", "evaluate --data d", "has format 3, this version reads 4: prepare the log again",
        set_keys("d/manifest.json", format=3)),
    Row("C040", "no tokenizer", TRAIN, "tokenizer", lambda here: shutil.rmtree(here / "d" / "tokenizer")),
    Row("C041", "tokenizer.json is cut", TRAIN, r"tokenizer\.json", cut("d/tokenizer/tokenizer.json")),
    Row("C042", "items.parquet is missing", APPEND, r"items\.parquet", both(_NEW, remove("d/items.parquet"))),
    Row("C043", "items.parquet is cut", APPEND, r"items\.parquet", both(_NEW, cut("d/items.parquet"))),
    Row("C046", "items.parquet shuffled: append would rename items", APPEND, r"items\.parquet", both(_NEW, _shuffled)),
    Row("C048", "tokens beyond the vocabulary", TRAIN, r"histories\.arrow", _first_item(5000)),
    Row("C049", "tokens beyond the vocabulary, evaluated", EVALUATE, r"histories\.arrow", _first_item(5000)),
    Row("C050", "negative tokens", TRAIN, r"histories\.arrow", _first_item(-3)),
    Row("C051", "train_length longer than the history", TRAIN, r"histories\.arrow", _lengths(99)),
    Row("C052", "train_length of the whole: leaks the targets", TRAIN, r"histories\.arrow", _lengths(12)),
    Row("C054", "test targets at other places", EVALUATE, r"test\.arrow", flip("d/test.arrow", 0.6, 8)),
    Row("C055", "the test targets are the validation targets", EVALUATE, r"test\.arrow",
        lambda here: shutil.copy(here / "d" / "validation.arrow", here / "d" / "test.arrow")),
    Row("C061", "test.arrow is a pipe", EVALUATE, r"test\.arrow", _pipe("d/test.arrow"), seconds=30),
    Row("C062", "histories cut, described", "data describe d", r"histories\.arrow", cut("d/histories.arrow")),
    Row("C063", "histories.arrow is a folder", TRAIN, r"histories\.arrow", _replaced_by_folder("d/histories.arrow")),
    Row("C064", "the folder is empty", TRAIN, "not a prepared folder",
        lambda here: (shutil.rmtree(here / "d"), (here / "d").mkdir())),
    Row("C065", "verify finds flipped bytes", "data verify d", r"histories\.arrow", flip("d/histories.arrow")),
    Row("C066", "verify finds a file that is missing", "data verify d", r"unknown\.arrow", remove("d/unknown.arrow")),
    Row("C067", "append to nothing", "data append nowhere new.csv --output o", "nowhere is not a prepared folder", _NEW),
    Row("C068", "append of nothing", "data append d nowhere.csv --output o", r"nowhere\.csv: no such file"),
    Row("C070", "append into the folder itself", "data append d new.csv --output d", "d", _NEW),
    Row("C071", "describe nothing", "data describe nowhere", "nowhere"),
    Row("C072", "finetune on damaged data", "finetune RECIPE --model RUN --data d --output o", r"histories\.arrow",
        flip("d/histories.arrow")),
    Row("C073", "tasks on damaged data", "tasks --data d --task overall", r"histories\.arrow", flip("d/histories.arrow")),
]  # fmt: skip
