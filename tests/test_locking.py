import contextlib
import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from sr_transformers.locking import LOCK, only_one

HOLD = """
    import os, sys, time
    from sr_transformers.locking import only_one
    with only_one(sys.argv[1]):
        if sys.argv[2] == "fork" and os.fork() == 0:
            print("held", flush=True)  # by the parent; this child lives on when the parent is killed
            time.sleep(60)
        if sys.argv[2] != "fork":
            print("held", flush=True)
        time.sleep(60)
"""


def hold(folder, how="plainly"):
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(folder), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("how", ["plainly", "fork"])
def test_the_second_process_is_refused_until_the_first_is_gone_even_if_it_was_killed(tmp_path, how):
    process = hold(tmp_path / "out", how)
    try:
        named = rf"out is in use: process {process.pid} on .* is writing to it"
        with pytest.raises(BlockingIOError, match=named), only_one(tmp_path / "out"):
            raise AssertionError("not reached")
        process.kill()
        process.wait()
        with only_one(tmp_path / "out"):
            assert (tmp_path / "out" / LOCK).read_text().startswith(f"process {os.getpid()} ")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_another_thread_is_refused_too(tmp_path):
    refused = []

    def come_second():
        with pytest.raises(BlockingIOError), only_one(tmp_path):
            raise AssertionError("not reached")
        refused.append(True)

    with only_one(tmp_path):
        thread = threading.Thread(target=come_second)
        thread.start()
        thread.join()
    assert refused


def test_what_was_made_for_nothing_is_gone_and_work_stays(tmp_path):
    with only_one(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with only_one(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "work").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["work"]
    with only_one(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "work").unlink()
    assert (tmp_path / "a" / "b").is_dir()  # it was there before


def test_a_forked_child_does_not_give_the_lock_away(tmp_path):
    with only_one(tmp_path / "out"):
        child = multiprocessing.get_context("fork").Process(target=lambda: None)
        child.start()
        child.join()
        with pytest.raises(BlockingIOError), only_one(tmp_path / "out"):
            raise AssertionError("not reached")


def count_alone(folder, times):
    done = 0
    while done < times:
        try:
            with only_one(folder):
                seen = int((folder.parent / "count").read_text())
                (folder.parent / "count").write_text(str(seen + 1))
                done += 1
        except BlockingIOError:
            pass


def test_never_two_at_once_while_folders_come_and_go(tmp_path):
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=count_alone, args=(tmp_path / "out", 150)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert (tmp_path / "count").read_text() == "450"


def test_a_folder_that_goes_while_it_is_looked_at_is_made_again(tmp_path, monkeypatch):
    """`Path.mkdir` finds the folder, then looks whether it is one, and may come too late for that."""
    mkdir, calls = Path.mkdir, []

    def too_late(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 1:
            raise FileExistsError(17, "File exists", str(self))
        return mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", too_late)
    with only_one(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()
    assert len(calls) == 2


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(FileExistsError), only_one(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "not a folder"


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match="file system without locks"), only_one(tmp_path):
        pass
