"""Run records as points of a law: N, D, loss and a metric per run; refuses to mix what cannot be compared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.records import RUN_FILE, RunRecord
from sr_transformers.scaling.laws import UNIQUE, D, N
from sr_transformers.scaling.points import LOSS, METRIC, Points, points_from


def read_records(paths: Sequence[str | Path], metric: str | None = None, seen: bool = False) -> Points:
    """Points from run.json files, and from folders all run.json files below them.

    Raises:
        FileNotFoundError: if a path is not there, or a folder holds no record.
        ValueError: for a file that is no record, and as `points_of`.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.rglob(RUN_FILE)) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise FileNotFoundError(f"{path}: no run record ({RUN_FILE}) there.")
        files += found
    return points_of([RunRecord.load(file) for file in files], metric, seen, [str(file) for file in files])


def points_of(
    records: Sequence[RunRecord], metric: str | None = None, seen: bool = False, rows: Sequence[str] | None = None
) -> Points:
    """Points from records, by the report of the model (the first one).

    Args:
        metric: what becomes the column `metric` of the points, for example "ndcg@10"; None: there is none.
        seen: D counts interactions seen up to the weights that were kept, repeats included, and `unique` the distinct
            ones; else D counts distinct interactions, as in L(D).

    Raises:
        ValueError: for no records, records of different logs or protocols, or a record without loss or metric.
    """
    if not records:
        raise ValueError("there are no run records.")
    names = (
        list(rows) if rows is not None else [f"record {index + 1} ({one.name})" for index, one in enumerate(records)]
    )
    reports = [_report(record, metric, name) for record, name in zip(records, names, strict=True)]
    for report, name in zip(reports, names, strict=True):
        if report["protocol"] != reports[0]["protocol"]:
            raise ValueError(
                f"{name} was evaluated by another protocol or on another log than {names[0]}: fit each by itself."
            )
    unique = np.array([one.num_train_interactions for one in records], dtype=np.float64)
    columns = {
        N: np.array([one.num_non_embedding_parameters for one in records], dtype=np.float64),
        D: np.array([_seen(one) for one in records]) if seen else unique,
        UNIQUE: unique,
        LOSS: np.array([one["metrics"]["loss"] for one in reports]),
    }
    if metric is not None:
        columns[METRIC] = np.array([one["metrics"][metric] for one in reports])
    if seen:
        columns[D] = np.maximum(columns[D], unique)  # a run that kept weights of before the end of its first epoch
    return points_from(columns, names, [_group(one) for one in records])


def _report(record: RunRecord, metric: str | None, name: str) -> dict[str, Any]:
    report = record.reports[0] if record.reports else {"metrics": {}}
    for wanted in ("loss", metric):
        if wanted is not None and wanted not in report["metrics"]:
            raise ValueError(f"{name} has no {wanted} on the test targets; it has {', '.join(report['metrics'])}.")
    return report


def _seen(record: RunRecord) -> float:
    """Interactions seen up to the kept weights."""
    kept = record.best_step if record.best_step is not None else record.steps
    return record.num_interactions_seen * kept / record.steps


def _group(record: RunRecord) -> str:
    """Everything but the seed."""
    model = {key: value for key, value in record.recipe["model"].items() if key != "transformers_version"}
    training = {key: value for key, value in record.recipe["training"].items() if key not in ("seed", "data_seed")}
    return json.dumps([model, training, record.data.get("fraction")], sort_keys=True, default=str)
