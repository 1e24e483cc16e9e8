"""From a log to the best model that a budget of time buys: search, final training, evaluation, report.

    FOLDER/settings.json    what the search was started with
    FOLDER/prepared/        the log, if it was given one that was not prepared
    FOLDER/trials.journal   Optuna's storage: every trial, every validation
    FOLDER/trials/NNNN/     trainings that are going on, and the best one
    FOLDER/progress.json    time used, and where the search stands
    FOLDER/model/           the best setting, trained and evaluated: a finished run
    FOLDER/recipe.yaml      its recipe, for `sr-transformers train`
    FOLDER/report.md        one page, with figures/
    FOLDER/tune.json        everything in it, for programs

A search that was stopped goes on when it is started again; one that is over goes on with a larger budget.
"""

import dataclasses
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from sr_transformers.data.logs import sources
from sr_transformers.data.manifest import MANIFEST
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.splits import LEAVE_ONE_OUT
from sr_transformers.locking import only_one
from sr_transformers.records import RUN_FILE, RunRecord, read_json, write_whole
from sr_transformers.scaling.studies.workers import begin_worker, pool_of, threads_of
from sr_transformers.training.portfolio import choose
from sr_transformers.training.preflight import check_test
from sr_transformers.training.recipe import Recipe, refuse_tokens
from sr_transformers.training.train import fitted, train
from sr_transformers.training.unread import refuse_unread
from sr_transformers.tuning import storage
from sr_transformers.tuning.budget import Plan, Probe, as_dict, check_targets, in_words, plan, probe
from sr_transformers.tuning.progress import Lines, Progress
from sr_transformers.tuning.report import TUNE, write_report
from sr_transformers.tuning.space import HEADS, portfolio, recipe_of
from sr_transformers.tuning.trials import Deadline, Stopped, Terms, work

SETTINGS, PREPARED, MODEL = "settings.json", "prepared", "model"
_LOOK_EVERY = 0.5  # seconds: how soon a line follows a trial


def tune(
    source: Any,
    output: str | Path,
    budget: float,
    jobs: int = 1,
    split: str | None = None,
    seed: int = 0,
    fixed: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> RunRecord:
    """Searches, trains and evaluates within a budget of time; goes on where it was stopped.

    Args:
        source: a prepared folder, or what `prepare` takes (prepared with its defaults then).
        output: folder of the search; made if missing.
        budget: seconds for all of it, earlier starts included.
        jobs: trials side by side, each with its share of the cores.
        split: of a log that is to be prepared; None: leave_one_out.
        seed: of the trainings and of what the sampler draws.
        fixed: keys of recipes that are not varied, and their values.
        say: where lines for people go.

    Returns:
        The record of the best setting's training, evaluated once on the test targets beside the baselines.

    Raises:
        ImportError: without Optuna or matplotlib (extra `tune`).
        ValueError: for a log that is too small, a budget that is too short (the message says what the smallest sensible
            one is), an unknown key in `fixed`, or if all trials fail.
        FileExistsError: if the folder holds another search, one that has used up this budget, or something else.
        BlockingIOError: if another process works in the folder.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a search starts its own processes (--jobs): start it without a launcher.")
    if jobs < 1 or not budget > 0:
        raise ValueError(f"jobs is {jobs} and the budget {budget:g} seconds; both must be above 0.")
    given = check_fixed(fixed or {})
    output, since = Path(output).resolve(), time.time()
    with only_one(output):
        data = _open(source, output, split)
        _check_settings(output, {"data": data.digest, "seed": seed, "fixed": given})
        progress = Progress(output, since)
        known = read_json(output / TUNE) if (output / TUNE).exists() else None
        if known and budget <= known["budget"]:
            raise FileExistsError(
                f"{output} holds a finished search of {in_words(known['budget'])}: see {output / 'report.md'}. Give a "
                "larger budget to go on with it, or choose another output folder."
            )
        if budget <= progress.spent() and not known:
            say(f"the budget of {in_words(budget)} is used up; what was found is trained and evaluated now.")
        torch.set_num_threads(threads_of(jobs)) if jobs > 1 else None
        terms = _terms(data, output, progress, budget, jobs, seed, given, say)
        storage.mend(output)
        study = storage.open_search(output, seed)
        waiting = storage.go_on(study, output)
        if waiting:
            say(f"{len(waiting)} trial(s) were running when the search was stopped, and go on.")
        storage.begin_with(study, portfolio(data.manifest["counts"], given))
        _search(study, terms, progress, jobs, say)
        record = _final(study, terms, data, progress, say)
        write_report(output, study, terms, data, progress, record, budget, jobs)
        shutil.rmtree(output / storage.TRIALS, ignore_errors=True)
        return record


def _refuse_alone(fixed: Mapping[str, Any]) -> None:
    """Refuses a key that would contradict what the search draws for another one.

    Raises:
        ValueError: with what to fix too.
    """
    width, heads = fixed.get("hidden_size"), max(HEADS)
    for key, other, alone in (
        ("weight_decay", "decay_epochs=null", bool(fixed.get("weight_decay"))),
        ("num_negatives", "history=[]", bool(fixed.get("num_negatives"))),
        ("row_width", "max_position_embeddings=WINDOW", "row_width" in fixed),
        ("hidden_size", "num_attention_heads=HEADS", isinstance(width, int) and width % heads != 0),
    ):
        if alone and other.partition("=")[0] not in fixed:
            raise ValueError(
                f"--fix {key}={fixed[key]} does not go together with all that the search draws for "
                f"{other.partition('=')[0]}: add --fix {other}."
            )


# What a trial has or may have though nobody fixed it, as far as other keys are read with it only.
_OF_A_TRIAL = {"history": ["mix"], "num_negatives": 1024, "switch_optimizer": False}


def check_fixed(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are not varied, after a look at them.

    Raises:
        ValueError: for an unknown key, a value of the wrong type, a secret, a key that nothing reads, one that the
            search needs for itself, or one that another key must be fixed with.
    """
    pruned = "the search prunes by the validation of every epoch"
    resumed = "a search that was stopped goes on from the checkpoint of every epoch"
    ours = {
        "metric_for_best_model": f"settings are compared by {storage.METRIC}",
        "seed": "it is the option --seed",
        **dict.fromkeys(("eval_strategy", "eval_steps"), pruned),
        **dict.fromkeys(("save_strategy", "save_steps"), resumed),
        "load_best_model_at_end": "the weights that validated best are what is looked for",
        "switch_optimizer": "a search compares first phases; train the recipe that it finds with the switch",
        "push_to_hub": "publish the model that it finds: `sr-transformers publish`",
    }
    refuse_tokens(fixed, "--fix", "a search, which writes it down")
    for key, value in fixed.items():
        if key in ours:
            raise ValueError(f"--fix {key}: it cannot be fixed, for {ours[key]}.")
        Recipe().set(key, value, "--fix")
    _refuse_alone(fixed)
    recipe = Recipe()
    for key, value in {**_OF_A_TRIAL, **fixed}.items():
        recipe.set(key, value, "--fix")
    refuse_unread(recipe, fixed, "--fix ")
    return dict(fixed)


def _open(source: Any, output: Path, split: str | None) -> PreparedData:
    """The log, prepared in the folder of the search unless it was given prepared."""
    if isinstance(source, PreparedData) or (isinstance(source, str | Path) and (Path(source) / MANIFEST).is_file()):
        data = (source if isinstance(source, PreparedData) else PreparedData(source)).verified()
        if split not in (None, data.manifest["split"]):
            raise ValueError(
                f"{data.path} was prepared with the split {data.manifest['split']}, not {split}; leave --split out, or "
                "prepare the log again."
            )
    else:
        _check_folder(output, allowed=(PREPARED,))
        place = output / PREPARED
        if not place.exists():
            prepare(source, place, split=split or LEAVE_ONE_OUT)
        data = PreparedData(place).verified()
        said = sources.describe(sources.find_log(source))
        if said != data.manifest["source"] or (split or LEAVE_ONE_OUT) != data.manifest["split"]:
            raise FileExistsError(
                f"{place} was prepared from another log, or with another split; choose another output folder."
            )
    _check_folder(output, allowed=(PREPARED,))
    check_test(data)
    check_targets(data)
    return data


def _check_folder(output: Path, allowed: tuple[str, ...]) -> None:
    if (output / SETTINGS).exists():
        return
    other = [path.name for path in output.iterdir() if not path.name.startswith(".") and path.name not in allowed]
    if other:
        raise FileExistsError(f"{output} is not empty and holds no search; choose another output folder.")


def _check_settings(output: Path, settings: dict[str, Any]) -> None:
    stored = output / SETTINGS
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if stored.exists() and stored.read_text(encoding="utf-8") != text:
        raise FileExistsError(
            f"{output} holds a search with other settings (compare {stored}); choose another output folder, or start "
            "with the same log, --seed and --fix to go on with it."
        )
    write_whole(stored, text)


def _terms(
    data: PreparedData,
    output: Path,
    progress: Progress,
    budget: float,
    jobs: int,
    seed: int,
    fixed: dict[str, Any],
    say: Callable[[str], None],
) -> Terms:
    """What workers are told; probes and plans unless the search has done so before."""
    choice = choose(data.manifest["counts"])
    say(choice.because.replace("auto takes", "The search begins with", 1))
    if "plan" not in progress.content:
        first = recipe_of({**choice.overrides, **fixed}, choice.kind, seed)
        start = time.perf_counter()
        targets = check_targets(data)
        probed = probe(first, data, targets, output / ".probe")
        try:
            planned = plan(budget, jobs, probed, targets)
        except ValueError:
            (output / SETTINGS).unlink()  # nothing was begun
            raise
        progress.keep(probe=as_dict(probed), plan=as_dict(planned))
        progress.count("probe", time.perf_counter() - start)
    probed, planned = Probe(**progress.content["probe"]), Plan(**progress.content["plan"])
    part = "all users" if planned.fraction == 1 else f"{planned.fraction:.0%} of the users, the best on all of them"
    say(
        f"One training of it takes about {in_words(probed.full)} here. Trials train on {part}, and are compared by "
        f"{storage.METRIC.upper()} on {planned.targets:,} validation targets."
    )
    return Terms(output, data.path, choice.kind, fixed, seed, planned, probed, progress.begun, progress.begun + budget)


def _search(study: Any, terms: Terms, progress: Progress, jobs: int, say: Callable[[str], None]) -> None:
    """Trials until the time is up."""
    lines = Lines(say, lambda: terms.left(study))
    lines.tell(storage.ended(study))

    def tick() -> None:
        progress.tick()
        lines.tell(storage.ended(study))

    if jobs == 1:
        work(terms, 0, progress.tick, lambda: lines.tell(storage.ended(study)))
        return
    stop = multiprocessing.get_context("spawn").Event()
    with pool_of(jobs, _begin, threads_of(jobs), stop) as pool:
        waiting: set[Future[None]] = {pool.submit(_work_here, terms, worker) for worker in range(jobs)}
        try:
            while waiting:
                over, waiting = wait(waiting, _LOOK_EVERY, FIRST_COMPLETED)
                tick()
                for one in over:
                    one.result()
        except BrokenProcessPool as error:
            raise OSError(
                "a worker of the search was ended from outside, most likely for lack of memory. Nothing is lost: the "
                "same command goes on; with a smaller --jobs, or with --fix hidden_size=64, it needs less memory."
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    tick()
    progress.keep()


_stop: Any = None  # of a worker's process


def _begin(threads: int, stop: Any) -> None:
    global _stop
    _stop = stop
    begin_worker(threads)


def _work_here(terms: Terms, worker: int) -> None:
    def look() -> None:
        if _stop.is_set():
            raise Stopped("the search was interrupted.")

    work(terms, worker, look)


def _final(study: Any, terms: Terms, data: PreparedData, progress: Progress, say: Callable[[str], None]) -> RunRecord:
    """Trains the best setting in full unless it was, and evaluates it once on the test targets."""
    winner, model = storage.best(study), terms.folder / MODEL
    if winner is None:
        raise ValueError(
            f"no trial came to its first validation within the budget; start again with a larger one to go on with "
            f"{terms.folder}."
        )
    settings = winner.user_attrs["recipe"]
    recipe = Recipe("tuned", settings["model"], settings["training"], f"trial {winner.number} of a search was the best")
    begin = time.perf_counter()
    if progress.content.get("final") != winner.number:
        shutil.rmtree(model, ignore_errors=True)
        progress.keep(final=winner.number)
    if (model / RUN_FILE).exists():
        return RunRecord.load(model)
    if terms.plan.fraction == 1.0:
        say(f"Trial {winner.number} is the best: evaluated on the test targets, beside the baselines.")
        recipe.chosen = None  # the folder is the trial's, with the trial's settings
        if not model.exists():
            os.replace(terms.folder / storage.TRIALS / storage.folder_of(winner), model)
        with fitted(recipe, terms.plan.data(data), model, as_it_stands=True) as run:
            record = dataclasses.replace(run, seconds=winner.user_attrs["seconds"]).finish()
    else:
        say(f"Trial {winner.number} is the best: trained on all users, then evaluated beside the baselines.")
        usual = terms.final(study)  # it gets that much, however little of the budget is left
        deadline = Deadline(lambda: max(terms.at_all(), usual + begin - time.perf_counter()), progress.tick)
        record = train(recipe, terms.plan.whole(data), model, callbacks=[deadline])
    progress.count("final", time.perf_counter() - begin)
    return record
