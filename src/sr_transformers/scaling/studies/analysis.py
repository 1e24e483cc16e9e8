"""What a study found: laws, held-out predictions, ablations, shapes, computed from its folder.

The law's points are the finished runs that the plan marks so (`scaling.records_table.leave_out`). What cannot be
answered from the runs that are there is missing, with the reason in `notes`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from sr_transformers.data.fractions import USERS
from sr_transformers.fingerprints import refuse_mixed
from sr_transformers.records import RUN_FILE, RunRecord
from sr_transformers.scaling.laws.bootstrap import bootstrap
from sr_transformers.scaling.laws.constraints import Constraints
from sr_transformers.scaling.laws.fit_file import describe_fit, plain
from sr_transformers.scaling.laws.fitting import fit
from sr_transformers.scaling.laws.forms import TOGETHER, N, law_named
from sr_transformers.scaling.laws.model_selection import compare
from sr_transformers.scaling.laws.planned_record import refuse_another
from sr_transformers.scaling.laws.prediction import HeldOut, hold_out, hold_out_largest
from sr_transformers.scaling.laws.records_table import leave_out, points_of, read_plan, schedule_of
from sr_transformers.scaling.studies.conclusions import (
    Fitted,
    best_spent,
    bottleneck_at_most,
    floor_held,
    is_endless,
    misfit,
    when_epochs_stop_paying,
)
from sr_transformers.scaling.studies.soundness import gain_of_longer, reservations

METRICS = ("ndcg@10", "hr@10")
DRAWS = 200
FLOOR_FILE = "floor.json"  # in a study's folder: what `scaling sample` said of the log that it sampled
LITTLE = 0.3  # of the users: the runs on at most so many predict those on all
_AMOUNTS = 5  # of data, for a law of data at one size


@dataclass
class StudyRun:
    """A finished run and what it was planned as (`PlannedRun.describe`)."""

    name: str
    plan: dict[str, Any]
    record: RunRecord

    @property
    def loss(self) -> float:
        return float(self.record.reports[0]["metrics"]["loss"])

    def metric(self, name: str) -> float:
        return float(self.record.reports[0]["metrics"][name])

    @property
    def size_with_table(self) -> int:
        """N and the parameters of the item table."""
        return self.record.num_non_embedding_parameters + self.record.parameters["item_embedding"]


@dataclass
class Analysis:
    """All that a study found.

    Attributes:
        runs: finished runs by name.
        epochs: the main number of epochs, None if every size has its own.
        fraction: of users, at which sizes are compared.
        laws: "n", "n-with-table" (N counts the item table too), "joint", "kaplan", "repeated", "ndcg@10", "hr@10", and
            "d-98k" of a size with that name on at least five amounts of data: those that could be fitted.
        members: the runs that each was fitted to.
        held: by law ("n", "ndcg@10", ..): predictions of the two largest sizes; by "joint" and "kaplan": predictions of
            the runs on all of the data from those on at most 30 % of the users.
        document: everything as plain values for JSON.
        notes: what could not be answered, and why.
    """

    runs: list[StudyRun]
    epochs: float | None
    fraction: float
    laws: dict[str, Fitted]
    members: dict[str, list[StudyRun]]
    held: dict[str, HeldOut]
    document: dict[str, Any]
    notes: list[str]

    @property
    def together(self) -> Fitted | None:
        """The law of size and data to conclude from (`document["together"]`)."""
        name = self.document["together"]
        return None if name is None else self.laws[name]

    @property
    def closest(self) -> Fitted | None:
        """The law of size and data with the smallest residuals, whether anything may be concluded from it or not."""
        name = self.document["closest"]
        return None if name is None else self.laws[name]


def load_runs(folder: str | Path) -> list[StudyRun]:
    """Finished runs of a study folder.

    Raises:
        FileNotFoundError: if it is no study folder, or has no finished run.
        ValueError: if the record in a run's folder is that of another run.
    """
    folder = Path(folder)
    plans = read_plan(folder)["runs"]
    found = [
        StudyRun(name, plan, RunRecord.load(folder / "runs" / name))
        for name, plan in plans.items()
        if (folder / "runs" / name / RUN_FILE).is_file()
    ]
    for run in found:
        refuse_another(folder / "runs" / run.name / RUN_FILE, run.record, run.plan)
    if not found:
        raise FileNotFoundError(f"{folder} holds no finished run; `sr-transformers scaling run` goes on with it.")
    return found


def analyse(folder: str | Path, draws: int = DRAWS) -> Analysis:
    """Fits, predicts and compares what the finished runs of a study allow.

    Raises:
        ValueError: for runs of different logs or protocols, or none that is a point of the law.
        FileNotFoundError: as `load_runs`.
    """
    runs = load_runs(folder)
    refuse_mixed((run.name, report["protocol"]) for run in runs for report in run.record.reports[:1])
    plan = read_plan(Path(folder))
    plans, records = ({run.name: getattr(run, what) for run in runs} for what in ("plan", "record"))
    chosen = {
        law: [run for run in runs if run.name not in leave_out(plans, law_named(law))]
        for law in ("n", "joint", "kaplan", "repeated", "saturating")
    }
    series = chosen["n"]
    if not series:
        raise ValueError(f"{folder}: none of the finished runs is a point of the law; run more of the study.")
    unanswered: dict[str, list[str]] = {}
    laws: dict[str, Fitted] = {}
    members_of: dict[str, list[StudyRun]] = {}
    held: dict[str, HeldOut] = {}

    def add(
        name: str, law: str, metric: str | None = None, with_table: bool = False, of: list[StudyRun] | None = None
    ) -> None:
        members = chosen[law] if of is None else of
        try:
            points = points_of(
                [run.record for run in members], metric, law == "repeated", [run.name for run in members]
            )
            if with_table:
                points.columns[N] = np.array([run.size_with_table for run in members], dtype=np.float64)
            fitted = fit(law, points)
            if law == "repeated" and is_endless(fitted, "R_N"):  # one parameter fewer, and all others are known
                fitted = fit(law, points, constraints=Constraints({"R_N": fitted.params["R_N"]}))
        except ValueError as error:
            unanswered.setdefault(str(error), []).append(name)
            return
        members_of[name] = members
        laws[name] = Fitted(points, fitted, bootstrap(fitted, points, draws))
        if law in ("n", "saturating"):
            try:
                held[name] = hold_out_largest(points, law, 2, draws)
            except ValueError as error:
                unanswered.setdefault(str(error), []).append(f"{name} with the largest two held out")
        if law in TOGETHER:
            parts = np.array([run.plan["fraction"] for run in members])
            if (parts <= LITTLE).any() and (parts == 1).any():
                try:
                    held[name] = hold_out(points.take(parts <= LITTLE), points.take(parts == 1), law, draws)
                except ValueError as error:
                    question = f"{name}: all data predicted from {LITTLE:.0%} of the users"
                    unanswered.setdefault(str(error), []).append(question)

    for law in ("n", *TOGETHER, "repeated"):
        add(law, law)
    for size in dict.fromkeys(run.plan["size"] for run in chosen["joint"]):
        members = [run for run in chosen["joint"] if run.plan["size"] == size]
        if len({run.plan["fraction"] for run in members}) >= _AMOUNTS:
            add(f"d-{size}", "d", of=members)
    add("n-with-table", "n", with_table=True)
    for metric in METRICS:
        add(metric, "saturating", metric)
    comparisons = {
        name: compare(laws[name].points, forms)
        for name, forms in (
            ("n", ["n", "power"]),
            ("n-with-table", ["n", "power"]),
            ("joint", [*TOGETHER, "n", "d", "power"]),
        )
        if name in laws
    }
    notes = [f"{', '.join(questions)}: {reason}" for reason, questions in unanswered.items()]
    epochs, fraction = schedule_of(series[0].plan), series[0].plan["fraction"]
    misfits = {name: found for name, one in laws.items() if (found := misfit(one))}
    sound = {name: one for name, one in laws.items() if one.fitted.usable and name not in misfits}
    order = [one.law for one in comparisons.get("joint", [])]
    together = min((name for name in TOGETHER if name in sound), key=order.index, default=None)
    both = sound[together] if together else None
    tried = [name for name in TOGETHER if name in laws]
    closest = together or min(tried, key=lambda name: laws[name].fitted.log_rmse, default=None)
    document = {
        "epochs": epochs,
        "fraction_of_users": fraction,
        "num_runs": len(runs),
        "reservations": reservations(records, plan),
        "longer": _longer(records, plans),
        "tuning": plan.get("tuning"),
        "left_out": [{"run": name, "seconds": plan["costs"][name]["seconds"]} for name in plan.get("left_out", [])],
        "training_hours": sum(run.record.seconds for run in runs) / 3600,
        "laws": {
            name: describe_fit(one.fitted, one.points, one.refits, comparisons.get(name))
            | {"misfit": misfits.get(name)}
            for name, one in laws.items()
        },
        "together": together,
        "closest": closest,
        "held_out": {
            name: {
                "status": one.fitted.status,
                "reason": one.fitted.reason,
                "params": one.fitted.params,
                "no_intervals": one.refits.reason or None,
                "reach": one.reach,
                "reaches": one.reaches,
                "rows": one.rows,
            }
            for name, one in held.items()
        },
        "compute_optimal": best_spent(both, [run.record for run in members_of.get("joint", [])]),
        "bottleneck": bottleneck_at_most(both),
        "epochs_worth": when_epochs_stop_paying(sound.get("repeated")),
        "floor": floor_held(Path(folder) / FLOOR_FILE, laws, (*([together] if together else []), "n")),
        "agreement": agreement(series),
        "ablations": ablations(runs),
        "shapes": shapes(runs),
        "ways": [_row(run) for run in runs if run.plan["of"] != USERS],
        "notes": notes,
    }
    return Analysis(runs, epochs, fraction, laws, members_of, held, plain(document), notes)


def agreement(runs: list[StudyRun]) -> dict[str, float | int]:
    """Spearman correlation over runs of the loss with the metrics (-1: a lower loss always means a higher metric)."""
    result: dict[str, float | int] = {"num_runs": len(runs)}
    if len(runs) >= 3:
        for name in METRICS:
            result[name] = float(spearmanr([run.loss for run in runs], [run.metric(name) for run in runs]).statistic)
    return result


def losses_of(runs: Sequence[StudyRun]) -> dict[str, Any]:
    """Mean `loss` and `loss_standard_deviation` of runs that differ in their seed; no deviation of one run."""
    losses = [run.loss for run in runs]
    return {
        "loss": float(np.mean(losses)),
        "loss_standard_deviation": float(np.std(losses, ddof=1)) if losses[1:] else None,
    }


def _longer(records: Mapping[str, RunRecord], plans: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What at least twice the epochs still bring on validation, by size and fraction."""
    rows = []
    for name, plan in plans.items():
        if plan["in_law"] and plan["own_epochs"] and (gain := gain_of_longer(name, records, plans)) is not None:
            n = records[name].num_non_embedding_parameters
            rows.append({"run": name, "N": n, "epochs": plan["epochs"], "fraction": plan["fraction"], "gain": gain})
    return sorted(rows, key=lambda row: (row["N"], row["fraction"]))


def ablations(runs: list[StudyRun]) -> list[dict[str, Any]]:
    """Variants against the runs that differ in nothing but the variant's settings: means over the seeds both have."""
    rows = []
    plain_runs = {_place(run, seed=True): run for run in runs if not run.plan["settings"]}
    groups: dict[tuple, list[StudyRun]] = defaultdict(list)
    for run in runs:
        if run.plan["settings"]:
            groups[(run.plan["block"], *_place(run))].append(run)
    for (block, *_), members in groups.items():
        pairs = [(run, plain_runs[_place(run, True)]) for run in members if _place(run, True) in plain_runs]
        differences = [run.loss - other.loss for run, other in pairs]
        rows.append(
            {
                "variant": block,
                "settings": members[0].plan["settings"],
                "size": members[0].plan["size"],
                "N": members[0].record.num_non_embedding_parameters,
                "fraction": members[0].plan["fraction"],
                "epochs": members[0].plan["epochs"],
                "seeds": [run.plan["seed"] for run in members],
                **losses_of(members),
                "ndcg@10": float(np.mean([run.metric("ndcg@10") for run in members])),
                "switched_at": [run.record.switched_at for run in members],
                "loss_minus_plain": float(np.mean(differences)) if pairs else None,
                "pairs": len(pairs),
            }
        )
    return sorted(rows, key=lambda row: (row["N"], row["variant"]))


def shapes(runs: list[StudyRun]) -> list[dict[str, Any]]:
    """Runs whose N another shape has too (up to 5 %), at the same data, epochs and seed."""
    plain_runs = [run for run in runs if not run.plan["settings"]]
    rows = []
    for run in plain_runs:
        n = run.record.num_non_embedding_parameters
        twins = [
            other
            for other in plain_runs
            if _place(other, True)[1:] == _place(run, True)[1:]
            and other.plan["width"] * run.plan["layers"] != run.plan["width"] * other.plan["layers"]
            and abs(other.record.num_non_embedding_parameters / n - 1) < 0.05
        ]
        if twins:
            rows.append(_row(run))
    return sorted(rows, key=lambda row: (row["n"], row["width"] / row["layers"]))


def _place(run: StudyRun, seed: bool = False) -> tuple:
    plan = run.plan
    place = (plan["size"], plan["of"], plan["fraction"], plan["epochs"])
    return (*place, plan["seed"]) if seed else place


def _row(run: StudyRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "layers": run.plan["layers"],
        "width": run.plan["width"],
        "n": run.record.num_non_embedding_parameters,
        "seed": run.plan["seed"],
        "loss": run.loss,
        **{name: run.metric(name) for name in METRICS},
    }
