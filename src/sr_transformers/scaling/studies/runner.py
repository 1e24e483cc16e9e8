"""Does the runs of a study, one after the other or side by side, into a folder; goes on where it was stopped.

    STUDY/study.yaml        the study as it was started
    STUDY/plan.json         the protocol, the recipe and the precision it began with, the runs with their rates, costs,
                            speeds, what was tuned, what the budget left out, which runs diverged
    STUDY/runs/NAME/run.json    one record per run, nothing else unless weights are kept
    STUDY/tuning/NAME/run.json  the runs that tried learning rates and dropout rates

A finished run is never done again; a killed one continues from its last checkpoint. Under `accelerate launch` every
process calls this and does its share of every run; the first one decides what comes next.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from sr_transformers.data.fractions import CONTEXT
from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.protocol import protocol_of
from sr_transformers.fingerprints import differing
from sr_transformers.locking import only_one
from sr_transformers.records import RUN_FILE, RunRecord, read_json, write_whole
from sr_transformers.scaling.laws.planned_record import refuse_another
from sr_transformers.scaling.laws.records_table import PLAN_FILE
from sr_transformers.scaling.studies.budget import choose
from sr_transformers.scaling.studies.cost import Cost, Speed, calibrate, estimate
from sr_transformers.scaling.studies.learning_rates import Tuned
from sr_transformers.scaling.studies.rate_search import least_runs, tune
from sr_transformers.scaling.studies.study import PlannedRun, Size, Study, dump
from sr_transformers.scaling.studies.workers import Workers, finished, has_diverged, threads_of
from sr_transformers.training.arguments import chosen_precision
from sr_transformers.training.finish import machine
from sr_transformers.training.preflight import check_test, check_validation

STUDY_FILE = "study.yaml"


def run_study(
    study: Study,
    output: str | Path,
    data: PreparedData | str | Path | None = None,
    budget_minutes: float | None = None,
    dry_run: bool = False,
    keep_weights: bool = False,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> list[RunRecord]:
    """Estimates, tunes and trains.

    Args:
        output: folder of the study; made if missing, gone on with if it holds this study.
        data: a prepared log; None: the one that the study names.
        budget_minutes: wall time for what is still to do; the runs worth most per minute are done first, and a run
            that would not fit into what is left is not begun. Tuning stops where the runs marked `must` would no longer
            fit; the rates are then not called tuned.
        dry_run: stop after the estimate.
        keep_weights: keep model and checkpoints of every run.
        jobs: runs side by side, each with its share of the cores.
        say: where lines for people go.

    Returns:
        Records of the finished runs of the blocks (not of tuning); none for a dry run.

    Raises:
        FileExistsError: if `output` holds another study or something else.
        BlockingIOError: if another process works in `output`.
        ValueError: if the budget is too small for the runs that must be done, for jobs under `accelerate launch`, for a
            log without known targets (`preflight`), or if the study was begun with another recipe or on another log.
    """
    start = time.perf_counter()
    output = Path(output)
    data = (data if isinstance(data, PreparedData) else PreparedData(data or study.data)).verified()
    # Without a GPU accelerate has to be told, or every process takes itself for the only one until the first training.
    state = PartialState(cpu=not torch.accelerator.is_available())
    if jobs < 1 or (jobs > 1 and state.num_processes > 1):
        raise ValueError(
            f"jobs is {jobs} in {state.num_processes} process(es); give 1 or more, and 1 under `accelerate launch`, "
            "where every run is shared by all processes."
        )
    if study.tuning or study.recipe.training.get("eval_strategy") != "no":
        check_validation(data)
    check_test(data)
    with only_one(output) if state.is_main_process else contextlib.nullcontext():
        if state.is_main_process:
            _open(study, output)
        state.wait_for_everyone()
        workers = Workers(study, data, keep_weights, jobs)
        return _work(workers, output, budget_minutes, dry_run, say if state.is_main_process else _silent, start)


def _work(
    workers: Workers,
    output: Path,
    budget_minutes: float | None,
    dry_run: bool,
    tell: Callable[[str], None],
    start: float,
) -> list[RunRecord]:
    """`run_study` once the folder is ours."""
    study, data, jobs = workers.study, workers.data, workers.jobs
    plan = _load_plan(output)
    _same_beginning(plan, study, data, output)
    workers.study = study = _with_precision(plan, study)
    if jobs > 1:
        torch.set_num_threads(threads_of(jobs))  # as its runs will have
    if plan.get("calibrated_on") != (here := machine()):
        plan["calibrated_on"] = here
        speed = _on_first(lambda: calibrate(_some(study), study.recipe, data.vocab_size))
        plan.update(constants=list(speed.constants), measured=speed.measured)
        _save_plan(output, plan)
    speed = Speed(tuple(plan["constants"]), plan["measured"], data.vocab_size)  # type: ignore[arg-type]

    def cost(run: PlannedRun) -> Cost:
        return estimate(run, data, study.recipe, speed, study.validation_targets)

    tuning = least_runs(study, output / "tuning")
    costs = {run.name: cost(run) for run in [*study.runs, *tuning]}
    done = [run for run in study.runs if finished(output / "runs" / run.name)]
    seconds = None
    if budget_minutes is not None:
        least = sum(costs[run.name].seconds for run in tuning)
        seconds = budget_minutes * 60 * jobs - least
        if seconds <= 0:
            raise ValueError(
                f"the budget is {budget_minutes:g} minutes, and what is left of tuning takes at least about "
                f"{least / 60 / jobs:.2g}; raise --budget."
            )
    chosen = _on_first(lambda: choose(study.runs, costs, seconds, done))
    tell(estimate_table([*tuning, *chosen], costs))
    left_out = [run.name for run in study.runs if run not in chosen and run not in done]
    if left_out:
        tell(f"left out by the budget of {budget_minutes:g} minutes: {', '.join(left_out)}")
    known = plan.get("runs", {})  # with the rates that they were trained at
    plan["runs"] = {run.name: known.get(run.name) or run.describe() for run in study.runs}
    plan["converged_within"] = study.converged_within
    plan["costs"] = {name: dataclasses.asdict(one) for name, one in costs.items()}
    _save_plan(output, plan)
    if dry_run:
        return []

    diverged = [run.name for run in study.runs if run not in done and has_diverged(output / "runs" / run.name)]
    plan.update(left_out=left_out, diverged=diverged)
    _save_plan(output, plan)
    tuned = None
    if study.tuning:
        must = sum(costs[run.name].seconds for run in chosen if run.must) / jobs

        def late() -> bool:
            spent = time.perf_counter() - start
            return _on_first(lambda: budget_minutes is not None and spent + must > budget_minutes * 60)

        tuned = tune(workers, output / "tuning", tell, late)
        plan["tuning"] = tuned.describe()
        tell(tuned.text())
    planned = {run.name: _with_rates(run, tuned) for run in study.runs}
    plan["runs"] = {name: run.describe() for name, run in planned.items()}
    _save_plan(output, plan)
    _refuse_stale(done, planned, output)
    slower = _Slowdown()

    def affordable() -> Iterator[tuple[PlannedRun, Path]]:
        for planned in chosen:
            expected = costs[planned.name].seconds * slower.factor
            spent = time.perf_counter() - start
            if _on_first(lambda: budget_minutes is None or spent + expected <= budget_minutes * 60):  # noqa: B023
                yield _with_rates(planned, tuned), output / "runs" / planned.name
                continue
            tell(f"{planned.name}: not begun, about {expected / 60:.1f} minutes do not fit into what is left.")
            plan["left_out"].append(planned.name)
            _save_plan(output, plan)

    for index, (run, record, taken) in enumerate(workers.train(affordable()), 1):
        if record is None:
            tell(f"{run.name}: its model diverged, so it has no loss; {PLAN_FILE} names it.")
            if run.name not in plan["diverged"]:
                plan["diverged"].append(run.name)
            _save_plan(output, plan)
            continue
        slower.add(costs[run.name].seconds, taken)
        metrics = record.reports[0]["metrics"]
        tell(
            f"{index:3}/{len(chosen)}  {run.name:32}  N {record.num_non_embedding_parameters:>11,}  "
            f"D {record.num_train_interactions:>11,}  loss {metrics['loss']:.4f}  ndcg@10 {metrics['ndcg@10']:.4f}  "
            f"{record.seconds / 60:6.1f} min"
        )
    if budget_minutes is not None and not any(finished(output / "runs" / run.name) for run in study.runs):
        raise ValueError(
            f"the budget of {budget_minutes:g} minutes was spent before a run of the blocks could begin; "
            "raise --budget, and the same command goes on."
        )
    return load_records(output)


def load_records(output: str | Path) -> list[RunRecord]:
    """Records of the finished runs of a study's blocks, by name of the run.

    Raises:
        FileNotFoundError: if there is none.
    """
    paths = sorted((Path(output) / "runs").glob(f"*/{RUN_FILE}"))
    if not paths:
        raise FileNotFoundError(f"{output} holds no finished run (runs/*/{RUN_FILE}); `sr-transformers scaling run`.")
    return [RunRecord.load(path) for path in paths]


def estimate_table(runs: Sequence[PlannedRun], costs: dict[str, Cost]) -> str:
    """What the runs will cost, as Markdown, with a sum."""
    lines = ["| run | N | targets | FLOPs (blocks + head) | minutes | memory MB |", "|---|---|---|---|---|---|"]
    for run in runs:
        one = costs[run.name]
        lines.append(
            f"| {run.name} | {run.size.num_non_embedding_parameters:,} | {one.targets:,} | "
            f"{one.training_flops + one.head_flops:.2e} | {one.seconds / 60:.1f} | {one.memory_bytes / 2**20:,.0f} |"
        )
    flops = sum(costs[run.name].training_flops + costs[run.name].head_flops for run in runs)
    minutes = sum(costs[run.name].seconds for run in runs) / 60
    lines.append(f"| all {len(runs)} | | | {flops:.2e} | {minutes:.1f} | |")
    return "\n".join(lines)


class _Slowdown:
    """How much longer runs take than estimated, so far: other programs may share the machine."""

    def __init__(self) -> None:
        self.expected = self.taken = 0.0

    def add(self, expected: float, taken: float) -> None:
        self.expected += expected
        self.taken += taken

    @property
    def factor(self) -> float:
        return self.taken / self.expected if self.expected else 1.0


def _with_rates(run: PlannedRun, tuned: Tuned | None) -> PlannedRun:
    """The run with the rates of its size; those that its block sets win (`workers.train_run`)."""
    if tuned is None:
        return run
    # A shorter context has as many interactions to learn from.
    fraction = 1.0 if run.of == CONTEXT else run.fraction
    rate, dropout = tuned.rates_for(run.size.num_non_embedding_parameters, fraction)
    return dataclasses.replace(run, learning_rate=rate, dropout=dropout)


def _refuse_stale(done: Sequence[PlannedRun], planned: dict[str, PlannedRun], output: Path) -> None:
    """Refuses finished runs that are not as planned now, for one because tuning went on and found other rates.

    Raises:
        ValueError: naming all of them.
    """
    stale = {}
    for run in done:
        path = output / "runs" / run.name / RUN_FILE
        try:
            refuse_another(path, RunRecord.load(path.parent), planned[run.name].describe())
        except ValueError as error:
            stale[run.name] = str(error)
    if len(stale) > 1:
        raise ValueError(
            f"{len(stale)} finished runs are not as they are planned now: {', '.join(stale)}. The first: "
            f"{next(iter(stale.values()))} So with the others."
        )
    for message in stale.values():
        raise ValueError(message)


def _with_precision(plan: dict[str, Any], study: Study) -> Study:
    """The study with the precision that it was begun with: `auto` is another one on another machine."""
    asked = study.recipe.training.get("precision", "auto")
    if (precision := chosen_precision(asked)) == asked:
        return study
    precision = plan.setdefault("precision", precision)
    training = {**study.recipe.training, "precision": precision}
    return dataclasses.replace(study, recipe=dataclasses.replace(study.recipe, training=training))


def _some(study: Study) -> list[Size]:
    """Sizes to calibrate with: the smallest, the middle one and the largest of the runs."""
    used = sorted({run.size for run in study.runs}, key=lambda size: size.num_non_embedding_parameters)
    return list(dict.fromkeys([used[0], used[len(used) // 2], used[-1]]))


def _open(study: Study, output: Path) -> None:
    stored = output / STUDY_FILE
    text = dump(study.source)
    if stored.exists():
        if stored.read_text() != text:
            raise FileExistsError(
                f"{output} holds another study, or this one before it was changed (compare {stored}); choose another "
                f"output folder, or replace {stored.name} there by hand if its finished runs still belong to it."
            )
        return
    if any(not path.name.startswith(".") for path in output.iterdir()):
        raise FileExistsError(f"{output} is not empty and holds no study; choose another output folder.")
    write_whole(stored, text)


def _same_beginning(plan: dict[str, Any], study: Study, data: PreparedData, output: Path) -> None:
    """Adds log and recipe to a new plan, and compares them with those of an old one.

    Raises:
        ValueError: naming what differs.
    """
    protocol = protocol_of(data, "test", data.filters_seen())
    if other := differing(plan.setdefault("protocol", protocol), protocol):
        raise ValueError(
            f"{output} was begun on another log than {data.path} ({'; '.join(other)}): their losses must not stand in "
            "one study. Go on with the log it was begun on, or choose another output folder."
        )
    recipe = json.loads(json.dumps({"model": study.recipe.model, "training": study.recipe.training}))
    begun = plan.setdefault("recipe", recipe)
    if other := differing(*({**one["model"], **one["training"]} for one in (begun, recipe))):
        raise ValueError(
            f"{output} was begun with another recipe ({'; '.join(other)}): runs with both must not stand in one study. "
            f"Go on with the recipe it was begun with ({PLAN_FILE} there has it), or choose another output folder."
        )


def _load_plan(output: Path) -> dict[str, Any]:
    path = output / PLAN_FILE
    return read_json(path) if path.exists() else {}


def _save_plan(output: Path, plan: dict[str, Any]) -> None:
    if PartialState().is_main_process:
        write_whole(output / PLAN_FILE, json.dumps(plan, indent=2) + "\n")


def _on_first(compute: Callable[[], Any]) -> Any:
    """What the first process computes, on all of them."""
    state = PartialState()
    box = [compute() if state.is_main_process else None]
    if state.num_processes > 1:
        broadcast_object_list(box)
    return box[0]


def _silent(_: str) -> None:
    pass
