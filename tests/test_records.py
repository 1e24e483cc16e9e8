import dataclasses
import subprocess

import pytest

from sr_transformers import records
from sr_transformers.records import RunRecord, write_whole


def test_a_file_that_is_no_record_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"name": "x", "colour": 1}')
    with pytest.raises(ValueError, match=r"missing .*'seed'.*unknown \['colour'\]"):
        RunRecord.load(tmp_path)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        RunRecord.load(tmp_path / "run.json")


def test_every_field_is_explained():
    for field in dataclasses.fields(RunRecord):
        assert field.name in RunRecord.__doc__, field.name


def test_writing_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "one.json"
    path.write_text("old and long")
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_commit_of_the_sources_is_known_in_a_checkout_only(monkeypatch, tmp_path):
    repository = tmp_path / "checkout"
    (repository / "package").mkdir(parents=True)
    ours = repository / "package" / "records.py"
    ours.write_text("")
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    monkeypatch.setattr(records, "__file__", str(ours))
    assert records.source_commit() is None  # inside a checkout that does not hold the file
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "x"], check=True)
    clean = records.source_commit()
    assert clean is not None
    assert len(clean) == 40
    ours.write_text("# changed")
    assert records.source_commit() == clean + "+changes"
