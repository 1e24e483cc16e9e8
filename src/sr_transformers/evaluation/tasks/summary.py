"""From outcomes to numbers with intervals: means, gains over a reference model, changes from a base group."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr_transformers.evaluation.intervals import Estimate, bootstrap, over_seeds
from sr_transformers.evaluation.tasks.exposure import exposure
from sr_transformers.evaluation.tasks.task import Group, Outcome, Plan, TaskOptions

# Outcomes of one checkpoint by (pass, condition).
Found = Mapping[tuple[str, str], Outcome]
# By group, model and metric.
Estimates = dict[str, dict[str, dict[str, Estimate]]]


def summarise(
    plan: Plan, found: Mapping[str, Sequence[Found]], vocab_size: int, options: TaskOptions
) -> dict[str, Any]:
    """The report of one task.

    Args:
        found: by model name, its checkpoints (one per training seed) and what each of them did. The first model is
            the reference.

    Returns:
        `headlines`: the metrics that are compared. `groups`: what is known of each, with `num_users`. `results`: a row
        per model and group with anybody in it. Of all metrics the mean (`metrics`); of the headlines also
            relative_change         here / in the base group - 1
            difference              from the reference, with the p-value of a paired test (`p`)
            relative_gain           model / reference - 1
            gain_over_base          relative_gain here - relative_gain in the base group
            change_over_reference   relative_change - relative_change of the reference
        each {value, low, high}, where there is a base or a reference; `exposure`: coverage and Gini index of the
        recommended lists.
    """
    estimates: Estimates = {}
    groups, results = [], []
    for group in plan.groups:
        parts = {
            name: [one[group.pass_key, group.condition].of(group.rows) for one in runs] for name, runs in found.items()
        }
        num_users = len(next(iter(parts.values()))[0].users)
        groups.append({"name": group.name, "base": group.base, "num_users": num_users, **group.facts})
        if num_users:
            estimates[group.name] = _estimate(parts, options)
    for group in plan.groups:
        for place, (name, runs) in enumerate(found.items()):
            if group.name not in estimates:
                continue
            top = [one[group.pass_key, group.condition].of(group.rows).top for one in runs]
            results.append(
                {
                    "group": group.name,
                    "model": name,
                    "metrics": _summaries(estimates[group.name][name], options),
                    "exposure": _mean_exposure(top, vocab_size),
                    **_compare(plan, group, name, next(iter(found)) if place else None, estimates, options),
                }
            )
    return {
        "protocol": plan.protocol,
        "facts": plan.facts,
        "headlines": list(plan.headlines),
        "groups": groups,
        "results": results,
    }


def _estimate(parts: Mapping[str, Sequence[Outcome]], options: TaskOptions) -> dict[str, dict[str, Estimate]]:
    """Every metric of every model on one group, from common draws of its users."""
    columns = [
        (name, metric, value)
        for name, runs in parts.items()
        for one in runs
        for metric, value in one.metrics(options.ks).items()
        if not np.isnan(value).all()
    ]
    users = next(iter(parts.values()))[0].users
    points, draws = bootstrap(np.stack([value for *_, value in columns], axis=1), users, options.draws, options.seed)
    result: dict[str, dict[str, Estimate]] = {}
    for place, name in enumerate(parts):
        for metric in dict.fromkeys(metric for owner, metric, _ in columns if owner == name):
            index = [i for i, (owner, other, _) in enumerate(columns) if (owner, other) == (name, metric)]
            # The choice of seeds is the same in every group: their results stay paired.
            result.setdefault(name, {})[metric] = over_seeds(
                points[index].tolist(), draws[:, index].T, [options.seed, place]
            )
    return result


def _compare(
    plan: Plan, group: Group, name: str, reference: str | None, estimates: Estimates, options: TaskOptions
) -> dict[str, Any]:
    """Comparisons of the headlines with the reference model and with the base group; those that there are."""
    found: dict[str, dict[str, Any]] = {}

    def note(kind: str, metric: str, estimate: Estimate, test: bool = False) -> None:
        entry = estimate.summary(options.confidence)
        if test:
            entry["p"] = estimate.p_value()
        found.setdefault(kind, {})[metric] = entry

    here = estimates[group.name]
    base = estimates.get(group.base) if group.base else None
    for metric in plan.headlines:
        if metric not in here[name]:
            continue
        if reference:
            note("difference", metric, here[name][metric] - here[reference][metric], test=True)
            gain = here[name][metric].relative_to(here[reference][metric])
            note("relative_gain", metric, gain)
        if base:
            change = here[name][metric].relative_to(base[name][metric])
            note("relative_change", metric, change)
        if reference and base:
            note("gain_over_base", metric, gain - base[name][metric].relative_to(base[reference][metric]))
            other = here[reference][metric].relative_to(base[reference][metric])
            note("change_over_reference", metric, change - other)
    return found


def _summaries(estimates: Mapping[str, Estimate], options: TaskOptions) -> dict[str, dict[str, float | None]]:
    return {metric: estimate.summary(options.confidence) for metric, estimate in estimates.items()}


def _mean_exposure(top: Sequence[np.ndarray], vocab_size: int) -> dict[str, float | None]:
    """Mean over checkpoints; None where one has none."""
    measured = [exposure(one, vocab_size) for one in top]
    columns = {name: [one[name] for one in measured] for name in measured[0]}
    return {name: None if None in column else float(np.mean(column)) for name, column in columns.items()}  # type: ignore[arg-type]
