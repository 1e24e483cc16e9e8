"""Workers end with their parent, however that ends, and one that ended before it is no riddle."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from broken_pool import Broken

from sr_transformers.scaling.studies import workers

PARENT = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from sr_transformers.scaling.studies.workers import begin_worker

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin_worker, (1,))
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def lives(process: int) -> bool:
    """Whether a process runs; one that has ended and nobody asked for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    run = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    worker = int(run.stdout.readline())
    assert worker != os.getpid()
    assert run.wait(timeout=120) == -9
    end = time.monotonic() + 60
    while lives(worker) and time.monotonic() < end:
        time.sleep(0.1)
    assert not lives(worker)


def test_a_process_that_was_ended_from_outside_is_no_riddle(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "pool_of", Broken)
    work = workers.Workers(None, SimpleNamespace(path=tmp_path), jobs=2)
    with pytest.raises(OSError, match="ended from outside, most likely for lack of memory"):
        list(work.train([("run", tmp_path)]))
