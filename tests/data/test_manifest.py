"""Prepared folders that are not what was made: each ends with one message that names the file and what to do."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sr_transformers.cli import main
from sr_transformers.data.logs import synthetic
from sr_transformers.data.manifest import check_contents, digest, read_manifest, verify, write_manifest
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.streaming import StreamedData
from sr_transformers.evaluation.baselines import Popularity
from sr_transformers.evaluation.evaluator import evaluate

FIX = "Prepare the log again, or copy the folder again"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A sound folder in two shards, rows to append, and a recipe, all beside each other."""
    folder = tmp_path_factory.mktemp("sound")
    log = synthetic.generate(num_users=300, num_items=30, num_successors=3, mean_length=12)
    prepare(log, folder / "data", shards=2)
    pq.write_table(pa.table({"user_id": [1], "item_id": [2], "timestamp": [9999]}), folder / "new.parquet")
    (folder / "tiny.yaml").write_text(
        "model:\n  hidden_size: 16\n  num_hidden_layers: 1\n  max_position_embeddings: 8\n"
        "training:\n  max_steps: 1\n  disable_tqdm: true\n"
    )
    return folder


COMMANDS = {
    "evaluate": "evaluate --data {d}",
    "tasks": "tasks --data {d} --task long_tail",
    "train": "train {recipe} --data {d} --output {o}",
    "describe": "data describe {d}",
    "append": "data append {d} {new} --output {o}",
    "verify": "data verify {d}",
}
HISTORIES = "histories-00001-of-00002.arrow"


def run(command: str, sound: Path, data: Path) -> int:
    words = {"d": data, "o": data.parent / "out", "recipe": sound / "tiny.yaml", "new": sound / "new.parquet"}
    return main(COMMANDS[command].format(**words).split())


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def flip(name: str, start: float, size: int = 16) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        first = int(len(content) * start)
        content[first : first + size] = bytes(255 - byte for byte in content[first : first + size])
        (folder / name).write_bytes(content)

    return damage


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))

    return damage


def put(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)  # type: ignore[func-returns-value]


def rewrite(name: str, column: str, change: Callable[[list], list]) -> Callable[[Path], None]:
    """A well-formed file of other content."""

    def damage(folder: Path) -> None:
        with pa.ipc.open_stream((folder / name).read_bytes()) as stream:
            table = stream.read_all()
        values = pa.array(change(table[column].to_pylist()), table.schema.field(column).type)
        table = table.set_column(table.column_names.index(column), column, values)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)

    return damage


def shuffle_items(folder: Path) -> None:
    items = pq.read_table(folder / "items.parquet")
    pq.write_table(items.take(list(range(len(items)))[::-1]), folder / "items.parquet", compression="zstd")


def pipe(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def without(*keys: str) -> Callable[[Path], None]:
    def change(manifest: dict) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        del manifest[keys[-1]]

    return edit(change)


CHANGED = r"manifest.json was changed after it was made"
DAMAGES = [
    ("histories cut", cut(HISTORIES), rf"{HISTORIES} has \d+ bytes, and had \d+", "train describe verify"),
    ("test cut", cut("test.arrow"), r"test.arrow has \d+ bytes, and had \d+", "evaluate"),
    ("validation empty", put("validation.arrow", b""), r"validation.arrow has 0 bytes", "evaluate"),
    ("lengths gone", lambda d: (d / "lengths.arrow").unlink(), "lengths.arrow is missing", "train"),
    ("unknown gone", lambda d: (d / "unknown.arrow").unlink(), "unknown.arrow is missing", "describe append"),
    ("vocabulary gone", lambda d: shutil.rmtree(d / "tokenizer"), "tokenizer/tokenizer.json is missing", "evaluate"),
    ("test a pipe", pipe("test.arrow"), "test.arrow is no regular file", "evaluate verify"),
    ("histories a pipe", pipe(HISTORIES), f"{HISTORIES} is no regular file", "train"),
    ("tokenizer a pipe", pipe("tokenizer/tokenizer.json"), "tokenizer.json is no regular file", "evaluate"),
    ("middle of histories", flip(HISTORIES, 0.5), f"{HISTORIES} has other contents", "evaluate train tasks verify"),
    ("end of histories", flip(HISTORIES, 0.9), f"{HISTORIES} has other contents", "append describe"),
    ("head of histories", flip(HISTORIES, 0, 8), HISTORIES, "evaluate train"),
    ("head of test", flip("test.arrow", 0, 8), "test.arrow", "evaluate"),
    ("items flipped", flip("items.parquet", 0.3), "items.parquet has other contents", "train append"),
    ("vocabulary flipped", flip("tokenizer/tokenizer.json", 0.5), "tokenizer.json has other contents", "train"),
    ("items shuffled", shuffle_items, r"items.parquet has", "append evaluate"),
    ("tokens beyond", rewrite(HISTORIES, "item_ids", lambda all: [[99] * len(one) for one in all]), HISTORIES, "train"),
    ("tokens below", rewrite(HISTORIES, "item_ids", lambda all: [[-5] * len(one) for one in all]), HISTORIES, "train"),
    ("too long", rewrite(HISTORIES, "train_length", lambda all: [99] * len(all)), HISTORIES, "train evaluate"),
    ("leaks", rewrite(HISTORIES, "train_length", lambda all: [one + 2 for one in all]), HISTORIES, "train"),
    ("no such target", rewrite("test.arrow", "position", lambda all: [10**6] * len(all)), "test.arrow has", "evaluate"),
    ("empty manifest", put("manifest.json", b""), "manifest.json is damaged: it cannot be read as JSON", "evaluate"),
    ("a list", put("manifest.json", b"[1]"), "manifest.json is damaged: it is no JSON object", "evaluate verify"),
    ("not UTF-8", put("manifest.json", b'{"\xff": 1}'), "manifest.json is damaged", "evaluate"),
    ("deep", put("manifest.json", b"[" * 10**5), "manifest.json is damaged", "evaluate"),
    ("other format", edit(lambda m: m.update(format=1)), "manifest.json has format 1, this version reads 4", "train"),
    ("no counts", without("counts"), CHANGED, "evaluate train describe"),
    ("no share", without("counts", "repeat_share"), CHANGED, "evaluate"),
    ("no split", without("split"), CHANGED, "evaluate"),
    ("no filters", without("filters"), CHANGED, "append"),
    ("no files", without("files"), CHANGED, "train"),
    ("no digest", without("xxh128"), CHANGED, "train"),
    ("10^12 items", edit(lambda m: m["counts"].update(items_in_vocabulary=10**12)), CHANGED, "train"),
    ("500 items", edit(lambda m: m["counts"].update(items_in_vocabulary=500)), CHANGED, "train"),
    ("bounds", edit(lambda m: m.update(shard_bounds=[0, 7, 300])), CHANGED, "train evaluate"),
    ("a leak denied", edit(lambda m: m.update(leaks="none")), CHANGED, "evaluate"),
]  # fmt: skip
ROWS = [
    pytest.param(damage, message, command, id=f"{what}-{command}")
    for what, damage, message, commands in DAMAGES
    for command in commands.split()
]


@pytest.mark.parametrize(("damage", "message", "command"), ROWS)
def test_a_folder_that_changed_is_refused_with_the_file_and_the_fix(sound, tmp_path, capsys, damage, message, command):
    shutil.copytree(sound / "data", tmp_path / "data")
    damage(tmp_path / "data")
    assert run(command, sound, tmp_path / "data") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.strip().splitlines()
    assert re.search(message, line), line
    assert str(tmp_path / "data") in line
    assert re.search("[Pp]repare the log again", line), line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("command", ["describe", "append", "verify"])
def test_a_sound_copy_is_taken(sound, tmp_path, capsys, command):
    shutil.copytree(sound / "data", tmp_path / "data")
    assert run(command, sound, tmp_path / "data") == 0
    assert str(tmp_path) in capsys.readouterr().out or command == "describe"


def test_verify_names_all_files_that_are_damaged_and_counts_the_sound_ones(sound, tmp_path, capsys):
    shutil.copytree(sound / "data", tmp_path / "data")
    files = verify(tmp_path / "data")
    size = sum((tmp_path / "data" / name).stat().st_size for name in files)
    assert main(["data", "verify", str(tmp_path / "data")]) == 0
    assert f"{len(files)} files of {size:,} bytes" in capsys.readouterr().out
    assert len(files) == sum(path.is_file() for path in (tmp_path / "data").rglob("*")) - 2  # less manifest and card
    (tmp_path / "data" / "test.arrow").unlink()
    flip(HISTORIES, 0.5)(tmp_path / "data")
    with pytest.raises(ValueError, match=rf"{HISTORIES} has other contents .*; .*test.arrow is missing. {FIX}"):
        verify(tmp_path / "data")


def test_opening_looks_at_sizes_only_and_evaluating_at_contents(sound, tmp_path):
    shutil.copytree(sound / "data", tmp_path / "data")
    flip(HISTORIES, 0.8)(tmp_path / "data")
    data = PreparedData(tmp_path / "data")
    with pytest.raises(ValueError, match=f"{HISTORIES} has other contents"):
        data.verified()
    with pytest.raises(ValueError, match=f"{HISTORIES} has other contents"):
        evaluate(Popularity(data), data)


def test_files_of_other_names_and_a_moved_folder_are_no_damage(sound, tmp_path):
    shutil.copytree(sound / "data", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "notes.txt").write_text("mine")
    assert len(PreparedData(tmp_path / "elsewhere").verified()) == 300


def test_a_damaged_shard_that_was_fetched_is_refused_and_fetched_again(sound, tmp_path):
    shutil.copytree(sound / "data", tmp_path / "small", ignore=shutil.ignore_patterns("histories-*"))
    shutil.copytree(sound / "data", tmp_path / "far")
    flip(HISTORIES, 0.5)(tmp_path / "far")
    data = StreamedData(tmp_path / "small", f"file://{tmp_path / 'far'}", tmp_path / "cache").verified()
    assert data.items(0, 2).tolist() == PreparedData(sound / "data").items(0, 2).tolist()
    with pytest.raises(ValueError, match=rf"cache/{HISTORIES} has other contents"):
        data.items(299, 2)
    flip(HISTORIES, 0.5)(tmp_path / "far")
    assert data.items(299, 2).tolist() == PreparedData(sound / "data").items(299, 2).tolist()


def test_the_manifest_names_every_file_and_comes_back(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "c").write_bytes(b"three")
    write_manifest(tmp_path, {"counts": {"ü": 0.1, "n": [1, None]}})
    manifest, files = read_manifest(tmp_path)
    assert manifest == {"format": 4, "counts": {"ü": 0.1, "n": [1, None]}}
    assert {name: said["bytes"] for name, said in files.items()} == {"a": 3, "inner/b": 3}
    assert files["a"]["xxh128"] == digest(tmp_path / "a") != digest(tmp_path / "inner" / "b")
    check_contents(tmp_path, files)
    (tmp_path / "a").write_bytes(b"One")
    with pytest.raises(ValueError, match="/a has other contents"):
        check_contents(tmp_path, files)
