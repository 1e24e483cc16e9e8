"""Why the runs of a study do not measure a law: they were stopped while they improved, their rates lie on the edge of
what was tried, or runs diverged or are missing. A fit to such runs is a fit, and is not called a law.

A run was still improving if the validation loss of its last tenth fell below all before by more than the study's
`converged_within` (nats), or if the study has a run with at least twice its epochs, else the same, that validates
better by more than that. Only the second is a proof: how far a curve falls at its end is also a matter of the schedule.
Grids of few epochs, which are there for the law of repeated data, are not asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sr_transformers.records import RunRecord
from sr_transformers.scaling.laws.forms import law_named
from sr_transformers.scaling.laws.records_table import leave_out

CONVERGED_WITHIN = 0.01  # nats; a study may say otherwise
_SAME = ("layers", "width", "of", "fraction", "seed", "settings", "learning_rate", "dropout")
_LAST = 0.9  # of the run's epochs: what comes after is its last tenth


def last_gain(record: RunRecord) -> float | None:
    """Nats by which the last tenth of a run, at least its last evaluation, undercut all evaluations before; 0 if it did
    not; None for fewer than two evaluations."""
    seen = [(entry["step"], entry["eval_loss"]) for entry in record.history if "eval_loss" in entry]
    if len(seen) < 2:
        return None
    end = min(_LAST * record.steps, seen[-1][0] - 1)
    before = [loss for step, loss in seen if step <= end]
    return max(min(before) - min(loss for _, loss in seen), 0.0) if before else None


def longer_twins(name: str, plans: Mapping[str, Any]) -> list[str]:
    """The planned runs with at least twice the epochs of one, else the same."""
    own = plans[name]
    return [
        other
        for other, plan in plans.items()
        if plan["epochs"] >= 2 * own["epochs"] and all(plan.get(key) == own.get(key) for key in _SAME)
    ]


def gain_of_longer(name: str, records: Mapping[str, RunRecord], plans: Mapping[str, Any]) -> float | None:
    """Nats by which a run with at least twice the epochs, else the same, validates better; None if there is none.

    Args:
        records: of all finished runs, by name; plans: of all planned ones (`PlannedRun.describe`).
    """
    losses = [records[other].validation["loss"] for other in longer_twins(name, plans) if other in records]
    return max(records[name].validation["loss"] - min(losses), 0.0) if losses else None


def reservations(
    records: Mapping[str, RunRecord], plan: Mapping[str, Any], tolerance: float | None = None
) -> list[dict[str, Any]]:
    """Reasons against calling a fit of these runs a law.

    Args:
        records: of all finished runs, by name.
        plan: the content of plan.json.
        tolerance: nats; None: the study's `converged_within`.

    Returns:
        A dictionary each: kind ("improving", "unwatched", "unchecked", "untuned", "edge", "cut short", "diverged",
        "missing"), reason in words, and names of the runs or sizes that it is about. None: an empty list.
    """
    within = float(plan.get("converged_within", CONVERGED_WITHIN) if tolerance is None else tolerance)
    plans = plan["runs"]
    points = {name: records[name] for name in records if name in plans and plans[name]["in_law"]}
    others = leave_out(plans, law_named("joint"))
    gains = {name: last_gain(record) for name, record in points.items() if name not in others}
    longer = {name: gain_of_longer(name, records, plans) for name in gains}
    found = []

    def add(kind: str, reason: str, names: Sequence[str]) -> None:
        if names:
            found.append({"kind": kind, "reason": reason, "names": list(names)})

    add(
        "improving",
        f"were still improving at their end (validation loss fell by more than {within:g} nats in the last tenth, or "
        "in twice the epochs)",
        [name for name, gain in gains.items() if max(gain or 0.0, longer[name] or 0.0) > within],
    )
    add(
        "unwatched",
        "have too few evaluations to tell whether they had converged",
        [name for name in gains if gains[name] is None],
    )
    add(
        "unchecked",
        "were planned with twice the epochs too, to tell whether they had converged, and these runs are missing",
        [name for name in gains if longer[name] is None and longer_twins(name, plans)],
    )
    tuning = plan.get("tuning")
    if tuning is None:
        add("untuned", "were trained at rates that no section `tuning` chose", list(points))
    elif not tuning["dropouts"]:
        add("untuned", "were trained at a dropout rate that no section `tuning` chose", list(points))
    for what, sizes in (tuning or {}).get("at_edge", {}).items():
        label = what.replace("_", " ")
        add("edge", f"have their best {label} at an edge of what was tried", sizes)
    add("cut short", "had their tuning ended by the budget", (tuning or {}).get("cut_short", []))
    diverged = plan.get("diverged", [])
    missing = [name for name, run in plans.items() if run["in_law"] and name not in records]
    add("diverged", "diverged and have no loss", [name for name in missing if name in diverged])
    missing = [name for name in missing if name not in diverged]
    add("missing", "were planned and not run", missing)
    return found
