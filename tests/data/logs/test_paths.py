import os
import subprocess
import sys

import pytest

from sr_transformers.data.logs.paths import check_name, check_regular
from sr_transformers.data.logs.sources import find_log
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData

LOG = "user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,a,3\n"
BAD = os.fsdecode(b"l\xff")


@pytest.fixture
def folder(tmp_path):
    """A log, and beside it a pipe, a device and a socket's worth of things that are no files."""
    (tmp_path / "log.csv").write_text(LOG)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "zero.parquet").symlink_to("/dev/zero")
    (tmp_path / "to_pipe.jsonl").symlink_to("pipe.csv")
    (tmp_path / "linked.csv").symlink_to("log.csv")
    return tmp_path


@pytest.mark.parametrize("name", ["pipe.csv", "zero.csv", "zero.parquet", "to_pipe.jsonl", "*.csv", "[p]ipe.csv", "."])
def test_pipes_and_devices_are_refused_and_never_opened(folder, name):
    with pytest.raises(ValueError, match=r"(pipe|zero)\.\w+: it is no regular file but a pipe, a device .*to a file"):
        prepare(folder / name, folder / "out")
    assert not (folder / "out").exists()


def test_a_link_to_a_file_is_a_file(folder):
    check_regular(folder / "linked.csv")
    assert find_log(folder / "linked.csv").files == (folder / "linked.csv",)
    assert len(prepare(folder / "linked.csv", folder / "out")) == 1


def test_a_name_that_is_not_utf8_is_refused_wherever_it_stands(folder):
    (folder / BAD).mkdir()
    (folder / BAD / "log.csv").write_text(LOG)
    (folder / "inner").mkdir()
    (folder / "inner" / f"{BAD}.csv").write_text(LOG)
    for log, output in ((f"{BAD}/log.csv", "out"), ("inner", "out"), ("inner/*", "out"), ("log.csv", f"{BAD}/out")):
        with pytest.raises(ValueError, match=r"l\\xff.*: its name is not read as UTF-8 here; rename it") as caught:
            prepare(folder / log, folder / output)
        str(caught.value).encode()  # it can be printed
    check_name(folder / "größe")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log.csv", "größe.csv"])
def test_in_a_locale_of_ascii_ids_with_accents_are_read_and_names_with_accents_refused(tmp_path, name):
    (tmp_path / name).write_text("user_id,item_id,timestamp\nü,é,1\nü,é,2\nü,é,3\n", encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "sr_transformers.cli", "prepare", tmp_path / name, "--output", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, timeout=120, env={**os.environ, **plain})
    if name.isascii():
        assert done.returncode == 0, done.stderr
        assert PreparedData(tmp_path / "out").histories["user_id"][:] == ["ü"]
    else:
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert (
            b"its name is not read as UTF-8 here; rename it, or, where the terminal shows it well, set PYTHON" in line
        )
