import dataclasses
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

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


def test_a_full_disk_leaves_what_was_there_and_is_named(tmp_path):
    path = tmp_path / "one.json"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*one\.json'"):
            write_whole(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one_and_a_device_is_written_to(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_whole(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"
    said = subprocess.run(
        [sys.executable, "-c", "from sr_transformers.records import write_whole; from pathlib import Path;"
         "write_whole(Path('/dev/stdout'), 'said')"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == "said"


@pytest.mark.parametrize("content", ['{"name": ', "\xff\xfe", "[" * 100_000])
def test_a_record_that_is_no_json_is_named(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=r"run\.json is no JSON"):
        RunRecord.load(tmp_path)


def test_a_record_of_another_form_is_named(tmp_path):
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"run\.json is no run record: it holds list"):
        RunRecord.load(tmp_path)


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


def test_the_command_of_a_record_can_be_typed_again(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/opt/bin/sr-transformers", "train", "my recipe.yaml", "--dropout", "[0.1,0.2]"])
    assert records.command_line() == "sr-transformers train 'my recipe.yaml' --dropout '[0.1,0.2]'"


def test_a_script_is_started_with_python(monkeypatch):
    root = Path(__file__).parent.parent
    for program, said in ((root / "recipes" / "demo.py", "recipes/demo.py"), ("/opt/mine/train.py", "train.py")):
        monkeypatch.setattr("sys.argv", [str(program), "--seed", "1"])
        assert records.command_line() == f"python {said} --seed 1"


def test_the_command_of_a_record_holds_no_token_and_no_place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["/opt/bin/sr-transformers", "train", "/opt/r.yaml", "--hub_token", "hf_X",
                                     "--output", str(tmp_path / "run")])  # fmt: skip
    assert records.command_line() == "sr-transformers train r.yaml --hub_token '***' --output run"


def test_a_module_is_started_with_python_as_the_processes_that_it_spawns_say_too(tmp_path):
    code = """
    import multiprocessing

    from some.thing.work import say

    if __name__ == "__main__":
        say()
        process = multiprocessing.get_context("spawn").Process(target=say)
        process.start()
        process.join()
    """
    package = tmp_path / "some" / "thing"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(code))
    (package / "work.py").write_text(
        "from sr_transformers.records import command_line\n\ndef say():\n    print(command_line(), flush=True)\n"
    )
    said = subprocess.run(
        [sys.executable, "-m", "some.thing", "--x"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout.split("\n")[:2] == ["python -m some.thing --x"] * 2
