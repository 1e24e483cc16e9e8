"""Run records as points of a law: N, D, loss and a metric per run; refuses to mix what cannot be compared."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.fingerprints import refuse_mixed
from sr_transformers.records import RUN_FILE, RunRecord, read_json
from sr_transformers.scaling.laws.forms import UNIQUE, D, Law, N
from sr_transformers.scaling.laws.planned_record import refuse_another
from sr_transformers.scaling.laws.points import LOSS, METRIC, Points, points_from, unread

PLAN_FILE = "plan.json"  # in a study's folder: what every run was planned as


def read_records(paths: Sequence[str | Path], law: Law, metric: str = "ndcg@10") -> Points:
    """Points of a law from run.json files, from folders (all run.json files below them), or from a study's folder.

    Of a study only the runs that belong to the law count (`leave_out`); the others are counted in `Points.dropped`.

    Args:
        metric: for the saturating law.

    Raises:
        FileNotFoundError: if a path is not there, or a folder holds no record.
        ValueError: for a file that is no record, for a record in the folder of another run, and as `points_of`.
    """
    files: list[Path] = []
    plan_of: dict[Path, dict[str, Any]] = {}
    dropped: Counter[str] = Counter()
    for path in map(Path, paths):
        if (path / PLAN_FILE).is_file():
            plans = read_plan(path)["runs"]
            plans = {name: plan for name, plan in plans.items() if (path / "runs" / name / RUN_FILE).is_file()}
            reasons = leave_out(plans, law)
            dropped.update(reasons.values())
            found = [path / "runs" / name / RUN_FILE for name in plans if name not in reasons]
            plan_of |= {file: plans[file.parent.name] for file in found}
        else:
            found = sorted(path.rglob(RUN_FILE)) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise FileNotFoundError(f"{path}: no run record ({RUN_FILE}) there.")
        files += found
    records = [RunRecord.load(file) for file in files]
    for file, record in zip(files, records, strict=True):
        if file in plan_of:
            refuse_another(file, record, plan_of[file])
    chosen = metric if law.name == "saturating" else None
    points = points_of(records, chosen, law.name == "repeated", [str(file) for file in files])
    points.dropped = dict(dropped)
    points.warnings += unread(law, points.columns)
    return points


def read_plan(folder: Path) -> dict[str, Any]:
    """The content of a study's plan.json.

    Raises:
        FileNotFoundError: if it is no study folder.
        ValueError: if it plans no runs yet.
    """
    if not (folder / PLAN_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} is no study: it has no {PLAN_FILE}; `sr-transformers scaling run` makes one."
        )
    plan = read_json(folder / PLAN_FILE)
    if not isinstance(plan, dict) or not isinstance(plan.get("runs"), dict):
        raise ValueError(
            f"{folder / PLAN_FILE} plans no runs: the study was stopped before it had begun, or the file is damaged; "
            "`sr-transformers scaling run` goes on with the study and writes it again."
        )
    return plan


def leave_out(plans: Mapping[str, Mapping[str, Any]], law: Law) -> dict[str, str]:
    """Which runs of a study are no points of a law, by name, and why.

    Variants, shapes and other ways of less data never are. Laws without repetition are fitted to the most frequent
    schedule (`schedule_of`), laws of size alone at the fraction of users with most sizes (of equals the largest), laws
    of data alone at the size with most fractions.
    """
    reasons = {
        name: "not a point of the law"
        for name, plan in plans.items()
        if not plan["in_law"] or (plan["of"] != "users" and plan["fraction"] != 1)
    }

    def keep_most(key: str, other: str, reason: str) -> None:
        left = {name: plan for name, plan in plans.items() if name not in reasons}
        values = {plan[key] for plan in left.values()}
        counts = {value: len({plan[other] for plan in left.values() if plan[key] == value}) for value in values}
        best = max(counts, key=lambda value: (counts[value], value), default=None)
        reasons.update({name: reason for name, plan in left.items() if plan[key] != best})

    if law.name != "repeated":
        left = {name: schedule_of(plan) for name, plan in plans.items() if name not in reasons}
        most = Counter(left.values()).most_common(1)
        reasons |= {name: "other epochs" for name, schedule in left.items() if schedule != most[0][0]}
    if law.variables == (N,):
        keep_most("fraction", "size", "other fractions of the data")
    elif law.variables == (D,):
        keep_most("size", "fraction", "other sizes")
    return reasons


def schedule_of(plan: Mapping[str, Any]) -> float | None:
    """How long a run trains, in epochs; None if its block gives every size a number of its own, until it converges."""
    return None if plan["own_epochs"] else plan["epochs"]


def points_of(
    records: Sequence[RunRecord], metric: str | None = None, seen: bool = False, rows: Sequence[str] | None = None
) -> Points:
    """Points from records, by the report of the model (the first one).

    Args:
        metric: what becomes the column `metric` of the points, for example "ndcg@10"; None: there is none.
        seen: D counts interactions seen up to the weights that were kept, repeats included, and `unique` the distinct
            ones among them, so that their ratio is the epochs where these are one or more; else D counts distinct
            interactions, as in L(D).

    Raises:
        ValueError: for no records, records of different logs or protocols, or a record without loss or metric.
    """
    if not records:
        raise ValueError("there are no run records.")
    names = (
        list(rows) if rows is not None else [f"record {index + 1} ({one.name})" for index, one in enumerate(records)]
    )
    reports = [_report(record, metric, name) for record, name in zip(records, names, strict=True)]
    refuse_mixed((name, report["protocol"]) for report, name in zip(reports, names, strict=True))
    unique = np.array([one.num_train_interactions for one in records], dtype=np.float64)
    columns = {
        N: np.array([one.num_non_embedding_parameters for one in records], dtype=np.float64),
        D: np.array([seen_up_to_kept(one) for one in records]) if seen else unique,
        UNIQUE: unique,
        LOSS: np.array([one["metrics"]["loss"] for one in reports]),
    }
    if metric is not None:
        columns[METRIC] = np.array([one["metrics"][metric] for one in reports])
    if seen:
        columns[UNIQUE] = np.minimum(unique, columns[D])  # less than one epoch has met a part of the data, and once
    points = points_from(columns, names, [_group(one) for one in records])
    points.metric = metric or ""
    return points


def _report(record: RunRecord, metric: str | None, name: str) -> dict[str, Any]:
    report = record.reports[0] if record.reports else {"metrics": {}}
    for wanted in ("loss", metric):
        if wanted is not None and wanted not in report["metrics"]:
            raise ValueError(f"{name} has no {wanted} on the test targets; it has {', '.join(report['metrics'])}.")
    return report


def seen_up_to_kept(record: RunRecord) -> float:
    """Interactions seen up to the kept weights: distinct ones times epochs.

    `num_interactions_seen` counts targets, which a history has one fewer of than interactions.
    """
    kept = record.best_step if record.best_step is not None else record.steps
    return record.num_train_interactions * record.epochs * kept / record.steps


def _group(record: RunRecord) -> str:
    """Everything but the seed."""
    model = {key: value for key, value in record.recipe["model"].items() if key != "transformers_version"}
    training = {key: value for key, value in record.recipe["training"].items() if key not in ("seed", "data_seed")}
    return json.dumps([model, training, record.data.get("fraction")], sort_keys=True, default=str)
