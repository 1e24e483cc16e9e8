"""Does the runs of a study, one after the other, into a folder; goes on where it was stopped.

    STUDY/study.yaml        the study as it was started
    STUDY/plan.json         the runs, costs, speeds, the tuned learning rates, what the budget left out
    STUDY/runs/NAME/run.json    one record per run, nothing else unless weights are kept
    STUDY/tuning/NAME/run.json  the runs that tried learning rates

A finished run is never done again; a killed one continues from its last checkpoint. Under `accelerate launch` every
process calls this and does its share of every run; the first one decides what comes next.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from sr_transformers.data.fractions import FractionOfData
from sr_transformers.data.histories import PreparedData
from sr_transformers.records import RUN_FILE, RunRecord, write_whole
from sr_transformers.scaling.records_table import PLAN_FILE
from sr_transformers.study.budget import choose
from sr_transformers.study.cost import Cost, Speed, calibrate, estimate
from sr_transformers.study.plan import PlannedRun, Size, Study, dump
from sr_transformers.study.tuning import best_rate, next_rate, rate_for, rate_law
from sr_transformers.training.checkpoints import last_complete_checkpoint
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.run import train

STUDY_FILE = "study.yaml"
_MORE_RATES = 3


def run_study(
    study: Study,
    output: str | Path,
    data: PreparedData | str | Path | None = None,
    budget_minutes: float | None = None,
    dry_run: bool = False,
    keep_weights: bool = False,
    say: Callable[[str], None] = print,
) -> list[RunRecord]:
    """Estimates, tunes and trains.

    Args:
        output: folder of the study; made if missing, gone on with if it holds this study.
        data: a prepared log; None: the one that the study names.
        budget_minutes: wall time for what is still to do; the runs worth most per minute are done first, and a run
            that would not fit into what is left is not begun.
        dry_run: stop after the estimate.
        keep_weights: keep model and checkpoints of every run.
        say: where lines for people go.

    Returns:
        Records of the finished runs of the blocks (not of tuning); none for a dry run.

    Raises:
        FileExistsError: if `output` holds another study or something else.
        ValueError: if the budget is too small for the runs that must be done.
    """
    start = time.perf_counter()
    output = Path(output)
    data = data if isinstance(data, PreparedData) else PreparedData(data or study.data)
    # Without a GPU accelerate has to be told, or every process takes itself for the only one until the first training.
    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.is_main_process:
        _open(study, output)
    state.wait_for_everyone()
    tell = say if state.is_main_process else _silent

    plan = _load_plan(output)
    if "constants" not in plan:
        speed = _on_first(lambda: calibrate(_some(study), study.recipe, data.vocab_size))
        plan.update(constants=list(speed.constants), measured=speed.measured)
        _save_plan(output, plan)
    speed = Speed(tuple(plan["constants"]), plan["measured"], data.vocab_size)  # type: ignore[arg-type]

    def cost(run: PlannedRun) -> Cost:
        return estimate(run, data, study.recipe, speed, study.validation_targets)

    costs = {run.name: cost(run) for run in [*study.runs, *study.tuning_runs()]}
    tuning = [run for run in study.tuning_runs() if not _finished(output / "tuning" / run.name)]
    tuning_seconds = sum(costs[run.name].seconds for run in tuning)
    done = [run for run in study.runs if _finished(output / "runs" / run.name)]
    total = None if budget_minutes is None else budget_minutes * 60
    chosen = _on_first(lambda: choose(study.runs, costs, None if total is None else total - tuning_seconds, done))
    tell(estimate_table([*tuning, *chosen], costs))
    left_out = [run.name for run in study.runs if run not in chosen and run not in done]
    if left_out:
        tell(f"left out by the budget of {budget_minutes:g} minutes: {', '.join(left_out)}")
    plan["runs"] = {run.name: run.describe() for run in study.runs}
    plan.update(costs={name: dataclasses.asdict(one) for name, one in costs.items()}, left_out=left_out)
    _save_plan(output, plan)
    if dry_run:
        return []

    rates, at_end = _tune(study, data, output, keep_weights, tell)
    if rates:
        a, b = rate_law(dict(rates))
        plan["learning_rates"] = {
            "best": {f"{n:.0f}": rate for n, rate in rates.items()},
            "at_end_of_those_tried": at_end,
            "law": {"log_rate_at_N_1": a, "slope": b},
        }
        _save_plan(output, plan)
        tell(f"learning rate = {rate_for(1e5, rates):.2g} at N = 100,000, to the power {b:.2f} of N")
    slower = _Slowdown()
    for index, planned in enumerate(chosen, 1):
        run = planned
        if rates and "learning_rate" not in dict(run.settings):
            run = dataclasses.replace(run, learning_rate=rate_for(run.size.num_non_embedding_parameters, rates))
        expected = costs[run.name].seconds * slower.factor
        spent = time.perf_counter() - start
        if not _on_first(lambda: total is None or spent + expected <= total):  # noqa: B023 (called at once)
            tell(f"{run.name}: not begun, about {expected / 60:.1f} minutes do not fit into what is left.")
            plan["left_out"].append(run.name)
            _save_plan(output, plan)
            continue
        begin = time.perf_counter()
        record = _train(run, study, data, output / "runs" / run.name, keep_weights)
        slower.add(costs[run.name].seconds, time.perf_counter() - begin)
        metrics = record.reports[0]["metrics"]
        tell(
            f"{index:3}/{len(chosen)}  {run.name:32}  N {record.num_non_embedding_parameters:>11,}  "
            f"D {record.num_train_interactions:>11,}  loss {metrics['loss']:.4f}  ndcg@10 {metrics['ndcg@10']:.4f}  "
            f"{record.seconds / 60:6.1f} min"
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


def _train(run: PlannedRun, study: Study, data: PreparedData, folder: Path, keep_weights: bool) -> RunRecord:
    """One run, or its record if it is finished."""
    if _finished(folder):
        return RunRecord.load(folder)
    part = FractionOfData(data, run.of, run.fraction, validation_targets=study.validation_targets)
    model, training = dict(study.recipe.model), dict(study.recipe.training)
    recipe = Recipe(study.recipe.name, model, training)
    model.update(run.size.settings())
    for key, value in run.settings:
        recipe.set(key, list(value) if isinstance(value, tuple) else value)
    window = part.window(int(model.get("max_position_embeddings", 50)))
    model["max_position_embeddings"] = window
    if window < int(training.get("row_width") or window):
        training["row_width"] = window * (int(training["row_width"]) // window)
    training.update(num_train_epochs=run.epochs, seed=run.seed, disable_tqdm=True)
    if run.learning_rate is not None:
        training["learning_rate"] = run.learning_rate
    recipe.name = run.size.name
    if folder.exists() and last_complete_checkpoint(folder) is None and PartialState().is_main_process:
        shutil.rmtree(folder)  # killed before its first checkpoint: nothing to go on from, and rates may have changed
    PartialState().wait_for_everyone()
    record = train(recipe, part, folder, with_baselines=False)
    PartialState().wait_for_everyone()
    if not keep_weights and PartialState().is_main_process:
        for path in folder.iterdir():
            if path.name != RUN_FILE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return record


def _tune(
    study: Study, data: PreparedData, output: Path, keep_weights: bool, tell: Callable[[str], None]
) -> tuple[dict[float, float], list[str]]:
    """Best learning rate by N, and the sizes whose best one is still at an end of those tried.

    Where the best rate lies at an end, rates beyond are tried too, `_MORE_RATES` at most.
    """
    found: dict[float, float] = {}
    at_end = []
    for name in study.tuning.sizes if study.tuning else []:
        rates = list(study.tuning.learning_rates) if study.tuning else []
        first = len(rates)
        while True:
            runs = [study.tuning_run(name, rate) for rate in rates]
            records = [_train(run, study, data, output / "tuning" / run.name, keep_weights) for run in runs]
            best, end = best_rate(rates, [record.validation.get("loss", float("nan")) for record in records])
            if not end or len(rates) == first + _MORE_RATES:
                break
            rates.append(next_rate(rates, end))
        tell(f"learning rate of {name}: {best:.2g}" + (" (the end of those tried)" if end else ""))
        found[float(study.sizes[name].num_non_embedding_parameters)] = best
        at_end += [name] if end else []
    return found, at_end


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
    if output.exists() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty and holds no study; choose another output folder.")
    output.mkdir(parents=True, exist_ok=True)
    write_whole(stored, text)


def _load_plan(output: Path) -> dict[str, Any]:
    path = output / PLAN_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def _save_plan(output: Path, plan: dict[str, Any]) -> None:
    if PartialState().is_main_process:
        write_whole(output / PLAN_FILE, json.dumps(plan, indent=2) + "\n")


def _finished(folder: Path) -> bool:
    return (folder / RUN_FILE).exists()


def _on_first(compute: Callable[[], Any]) -> Any:
    """What the first process computes, on all of them."""
    state = PartialState()
    box = [compute() if state.is_main_process else None]
    if state.num_processes > 1:
        broadcast_object_list(box)
    return box[0]


def _silent(_: str) -> None:
    pass
