import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sr_transformers.data.staging import staged


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_gets_its_name_when_all_of_it_is_there(tmp_path):
    with staged(tmp_path / "deep" / "out") as staging:
        (staging / "file").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["file"]


def test_a_failure_leaves_nothing(tmp_path):
    def fill():
        with staged(tmp_path / "out") as staging:
            (staging / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert names(tmp_path) == []


KILLED = """
    import sys, time
    from pathlib import Path
    from sr_transformers.data.staging import staged
    with staged(Path(sys.argv[1])) as staging:
        (staging / "half").write_text("x")
        print("filling", flush=True)
        time.sleep(60)
"""


def test_killed_it_leaves_no_output_and_the_next_run_clears_up(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "filling\n"

        def fill_beside_it():
            with staged(tmp_path / "out"):
                assert len(names(tmp_path)) == 2  # the other run's folder is left alone while it lives
                (tmp_path / "out").mkdir()
                (tmp_path / "out" / "theirs").touch()

        with pytest.raises(FileExistsError, match="filled by another run"):
            fill_beside_it()
        assert len(names(tmp_path)) == 2
        (tmp_path / "out" / "theirs").unlink()
        (tmp_path / "out").rmdir()
        process.send_signal(signal.SIGKILL)
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "out").exists()
    with staged(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("number", "what"), [(errno.ENOSPC, "the disk is full at"), (errno.EFBIG, "no file may grow further in")]
)
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, number, what):
    def fill():
        with staged(tmp_path / "out"):
            raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=f"{what} {tmp_path}; nothing was left there"):
        fill()
    assert names(tmp_path) == []


def test_an_output_with_something_in_it_is_refused_at_once(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError, match="out exists and is not an empty folder"), staged(tmp_path / "out"):
        raise AssertionError("not reached")


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_filled_where_it_leads(tmp_path, exists):
    if exists:
        (tmp_path / "far").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "far")
    with staged(tmp_path / "out") as staging:
        (staging / "file").touch()
    assert names(tmp_path / "far") == names(tmp_path / "out") == ["file"]


def test_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileExistsError, match=r"^\. is the folder that this runs in"), staged(Path()):
        raise AssertionError("not reached")
