"""Runs tasks: every pass once per checkpoint, one checkpoint in memory at a time."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm.auto import tqdm

from sr_transformers import __version__
from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.baselines import Markov, Popularity, Scorer, UserFrequency
from sr_transformers.evaluation.evaluator import check_scorer
from sr_transformers.evaluation.mix import Mix
from sr_transformers.evaluation.protocol import protocol_of, seen_choice
from sr_transformers.evaluation.tasks import (
    cold_items,
    cold_start,
    long_tail,
    multi_domain,
    overall,
    robustness,
    time_drift,
    trajectory,
)
from sr_transformers.evaluation.tasks.summary import summarise
from sr_transformers.evaluation.tasks.task import NotRun, Outcome, Pass, Plan, TaskOptions
from sr_transformers.records import command_line, source_commit

# In the order of reports. The paper's five, then ours.
TASKS: dict[str, Callable[[PreparedData, TaskOptions], Plan | NotRun]] = {
    "overall": overall.plan,
    "long_tail": long_tail.plan,
    "cold_start": cold_start.plan,
    "multi_domain": multi_domain.plan,
    "robustness": robustness.plan,
    "trajectory": trajectory.plan,
    "cold_items": cold_items.plan,
    "time_drift": time_drift.plan,
}


@dataclass(frozen=True)
class Contestant:
    """A model that takes part.

    Attributes:
        name: in tables and figures.
        checkpoints: each opens one scorer; several are the same model trained with different seeds, whose results are
            averaged user by user.
        facts: for the report, for example its size.
        seen_choices: `filter_seen` of each checkpoint's configuration, for `seen_choice`.
    """

    name: str
    checkpoints: Sequence[Callable[[], Scorer]]
    facts: dict[str, Any] = field(default_factory=dict)
    seen_choices: tuple[bool | None, ...] = ()


def with_seen_choice(options: TaskOptions, contestants: Sequence[Contestant], data: PreparedData) -> TaskOptions:
    """Options whose `filter_seen` is decided, see `seen_choice`.

    Raises:
        ValueError: as `seen_choice`.
    """
    recorded = [one for contestant in contestants for one in contestant.seen_choices]
    return dataclasses.replace(options, filter_seen=seen_choice(options.filter_seen, recorded, data))


def baseline_contestants(data: PreparedData, options: TaskOptions) -> list[Contestant]:
    """Popularity, the Markov chain, the user's own frequencies where seen items stay in the ranking (elsewhere they
    are removed, and it is popularity again), and `Mix`. Beside models give them the options of `with_seen_choice`."""
    filter_seen = data.filters_seen(options.filter_seen)
    kinds: list[type[Popularity] | type[Markov] | type[UserFrequency]] = [Popularity, Markov]
    if not filter_seen:
        kinds.append(UserFrequency)
    found = [Contestant(kind.name, [lambda kind=kind: kind(data)]) for kind in kinds]  # type: ignore[misc]
    return [*found, Contestant(Mix.name, [lambda: Mix(data, filter_seen)])]


def run_tasks(
    contestants: Sequence[Contestant],
    data: PreparedData,
    tasks: Sequence[str] | None = None,
    options: TaskOptions | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Runs tasks for models and compares them.

    Args:
        contestants: the first is the reference that the others are compared with.
        tasks: names from `TASKS`; None: all.

    Returns:
        A report that can be written as JSON: `protocol`, `models`, and by task either `not_run` with the reason, or
        what `summary.summarise` returns. `seconds` counts every pass in the first task that needs it.

    Raises:
        ValueError: for an unknown task, no model, two models of one name, a model of other items than the log's, or as
            `seen_choice`.
    """
    options = with_seen_choice(options or TaskOptions(), contestants, data)
    chosen = list(TASKS) if tasks is None else list(dict.fromkeys(tasks))
    unknown = [name for name in chosen if name not in TASKS]
    if unknown:
        raise ValueError(f"task {unknown[0]!r} is not known; choose from {', '.join(TASKS)}.")
    names = [one.name for one in contestants]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"models are {names}; give at least one, and each a name of its own.")
    plans = {name: TASKS[name](data, options) for name in TASKS if name in chosen}
    passes: dict[str, Pass] = {}
    first_task: dict[str, str] = {}
    for name, plan in plans.items():
        for one in plan.passes if isinstance(plan, Plan) else ():
            passes.setdefault(one.key, one)
            first_task.setdefault(one.key, name)

    seconds = dict.fromkeys(plans, 0.0)
    found: dict[str, list[dict[tuple[str, str], Outcome]]] = {}
    total = len(passes) * sum(len(one.checkpoints) for one in contestants)
    with tqdm(total=total, disable=None if progress else True, leave=False) as bar:
        for contestant in contestants:
            found[contestant.name] = []
            for open_scorer in contestant.checkpoints:
                scorer = open_scorer()
                check_scorer(scorer, data)
                outcomes: dict[tuple[str, str], Outcome] = {}
                for key, one in passes.items():
                    bar.set_description(f"{contestant.name}: {key}")
                    start = time.perf_counter()
                    outcomes |= {(key, condition): outcome for condition, outcome in one.run(scorer).items()}
                    seconds[first_task[key]] += time.perf_counter() - start
                    bar.update()
                found[contestant.name].append(outcomes)

    reports: dict[str, Any] = {}
    for name, plan in plans.items():
        if isinstance(plan, NotRun):
            reports[name] = {"not_run": plan.reason}
            continue
        start = time.perf_counter()
        reports[name] = summarise(plan, found, data.vocab_size, options)
        reports[name]["seconds"] = seconds[name] + time.perf_counter() - start
    return {
        "protocol": _protocol(data, options),
        "models": [{"name": one.name, "num_checkpoints": len(one.checkpoints), **one.facts} for one in contestants],
        "tasks": reports,
    }


def _protocol(data: PreparedData, options: TaskOptions) -> dict[str, Any]:
    """All that is needed to repeat the numbers or to compare others with them; the fingerprint is that of an evaluation
    of the test targets, the options of the tasks stand beside it."""
    settings: Mapping[str, Any] = dataclasses.asdict(options)
    return {
        **settings,
        **protocol_of(data, "test", data.filters_seen(options.filter_seen)),
        "data": data.manifest["source"],
        "intervals": "percentile bootstrap over users, and over checkpoints where a model has several",
        "command": command_line(),
        "version": __version__,
        "commit": source_commit(),
    }
