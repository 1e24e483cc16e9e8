"""Trains the runs of a study, one after the other or several side by side, each with its share of the cores.

A run is left with its record alone unless weights are kept; a killed one goes on from its last checkpoint. One whose
model diverged leaves the settings it diverged with, and is not trained with these again.

Side by side means one process per job: training small models on many threads is slower than several on one thread each.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from sr_transformers.data.fractions import FractionOfData
from sr_transformers.data.prepared import PreparedData
from sr_transformers.lsrm.scoring_lsrm import DivergedError
from sr_transformers.records import RUN_FILE, RunRecord, read_json, write_whole
from sr_transformers.scaling.laws.planned_record import refuse_another
from sr_transformers.scaling.studies.study import PlannedRun, Study
from sr_transformers.training.checkpoints import last_complete_checkpoint
from sr_transformers.training.progress import silence
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.train import train

DIVERGED_FILE = "diverged.json"  # in a run's folder: the settings with which its model diverged
_CAN_HOLD = hasattr(signal, "pthread_sigmask")  # not on Windows


@dataclass
class Workers:
    """How the runs of a study are trained.

    Attributes:
        jobs: runs side by side; each has `threads_of(jobs)` threads.
    """

    study: Study
    data: PreparedData
    keep_weights: bool = False
    jobs: int = 1

    def train(self, runs: Iterable[tuple[PlannedRun, Path]]) -> Iterator[tuple[PlannedRun, RunRecord | None, float]]:
        """Trains runs into their folders; the next one is asked for when there is somebody to train it.

        Raises:
            OSError: if a process was ended from outside.

        Returns:
            Run, record (None if its model diverged: it has no loss) and seconds that it took (next to none for one that
            was finished before), as they finish.
        """
        if self.jobs == 1:
            for run, folder in runs:
                start = time.perf_counter()
                record = _unless_diverged(partial(train_run, run, self.study, self.data, folder, self.keep_weights))
                yield run, record, time.perf_counter() - start
            return
        with pool_of(self.jobs, begin_worker, threads_of(self.jobs)) as pool:
            waiting: dict[Future[RunRecord], tuple[PlannedRun, float]] = {}
            source = iter(runs)
            try:
                while True:
                    while len(waiting) < self.jobs and (item := next(source, None)) is not None:
                        job = pool.submit(_train_here, item[0], self.study, self.data.path, item[1], self.keep_weights)
                        waiting[job] = (item[0], time.perf_counter())
                    if not waiting:
                        return
                    for job in wait(waiting, return_when=FIRST_COMPLETED).done:
                        run, start = waiting.pop(job)
                        yield run, _unless_diverged(job.result), time.perf_counter() - start
            except BrokenProcessPool as error:
                raise OSError(
                    "a process that trained was ended from outside, most likely for lack of memory. Nothing is lost: "
                    "the same command goes on; with a smaller --jobs it needs less memory."
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _unless_diverged(result: Callable[[], RunRecord]) -> RunRecord | None:
    """A record, or None for a run that diverged; where a run is shared by processes, the error ends them all."""
    try:
        return result()
    except DivergedError:
        if PartialState().num_processes > 1:
            raise
        return None


def threads_of(jobs: int) -> int:
    """Threads of each of so many jobs on this machine."""
    return max((len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // jobs, 1)


def finished(folder: Path) -> bool:
    """Whether a run's folder holds its record."""
    return (folder / RUN_FILE).exists()


def has_diverged(folder: Path) -> bool:
    """Whether the model of a run diverged the last time that it was trained."""
    return (folder / DIVERGED_FILE).exists()


def train_run(run: PlannedRun, study: Study, data: PreparedData, folder: Path, keep_weights: bool) -> RunRecord:
    """One run, or its record if it is finished.

    Raises:
        DivergedError: if its model diverges, or did so before with the same settings.
        ValueError: if the record there is that of another run, or of this one with other rates.
    """
    if finished(folder):
        record = RunRecord.load(folder)
        refuse_another(folder / RUN_FILE, record, run.describe())
        return record
    part = FractionOfData(data, run.of, run.fraction, validation_targets=study.validation_targets)
    model, training = dict(study.recipe.model), dict(study.recipe.training)
    recipe = Recipe(run.size.name, model, training)
    if run.dropout is not None:
        model.update(embedding_dropout=run.dropout, residual_dropout=run.dropout)
    if run.learning_rate is not None:
        training["learning_rate"] = run.learning_rate
    model.update(run.size.settings())
    for key, value in run.settings:
        recipe.set(key, list(value) if isinstance(value, tuple) else value)
    window = part.window(int(model.get("max_position_embeddings", 50)))
    model["max_position_embeddings"] = window
    if window < int(training.get("row_width") or window):
        training["row_width"] = window * (int(training["row_width"]) // window)
    training.update(num_train_epochs=run.epochs, seed=run.seed, disable_tqdm=True, log_level="error")
    settings, mark = {"model": model, "training": training}, folder / DIVERGED_FILE
    if mark.exists() and read_json(mark) == json.loads(json.dumps(settings)):
        raise DivergedError(f"{folder.name} diverged with these settings before ({mark}); remove it to try again.")
    if folder.exists() and last_complete_checkpoint(folder) is None and PartialState().is_main_process:
        shutil.rmtree(folder)  # killed before its first checkpoint: nothing to go on from, and rates may have changed
    PartialState().wait_for_everyone()
    try:
        record = train(recipe, part, folder, with_baselines=False)
    except DivergedError:
        if PartialState().is_main_process:
            shutil.rmtree(folder, ignore_errors=True)  # its checkpoints lead nowhere
            folder.mkdir(parents=True)
            write_whole(mark, json.dumps(settings, indent=2) + "\n")
        raise
    PartialState().wait_for_everyone()
    if not keep_weights and PartialState().is_main_process:
        for path in folder.iterdir():
            if path.name != RUN_FILE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return record


def _train_here(run: PlannedRun, study: Study, data: Path, folder: Path, keep_weights: bool) -> RunRecord:
    return train_run(run, study, PreparedData(data), folder, keep_weights)


def pool_of(jobs: int, begin: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """Fresh processes, each of which is made a worker by `begin(*arguments)`, which calls `begin_worker`.

    Ctrl-C goes to all processes of a terminal. One that is still importing would say so in a traceback, so signals
    wait until `begin_worker`; whoever starts the pool gets it as ever.
    """
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), begin, arguments)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if _CAN_HOLD else None
    try:
        for _ in range(jobs):
            pool.submit(os.getpid)  # a call that finds no idle process starts one, which inherits what is held
    finally:
        if held is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return pool


def begin_worker(threads: int) -> None:
    """Makes a fresh process a worker of so many threads, which draws no bars and ends when its parent does, however."""
    if _CAN_HOLD:
        if signal.SIGINT in signal.sigpending():
            os._exit(130)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):  # said already, or too late: only the speed depends on it
        torch.set_num_interop_threads(1)
    silence()


def _end_with_parent() -> None:
    """A pool's worker would wait for ever for a parent that was killed: its siblings hold the queue open."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
