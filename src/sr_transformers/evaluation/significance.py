"""Which of several models is better on one log, and how sure that is: differences user by user, over users and seeds.

What makes a user easy or hard for two models alike cancels out in the difference, so this is far sharper than two means
with an interval each. Runs of one recipe with several seeds are one entry: their differences then also vary by seed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.comparison import evaluate_each, standard_error
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.metrics import DEFAULT_KS, hit_rate, ndcg
from sr_transformers.evaluation.origin import run_of
from sr_transformers.evaluation.protocol import protocol_line, protocol_of, request_choice, seen_choice
from sr_transformers.figures import COLOURS, blank, save
from sr_transformers.fingerprints import differing

SAMPLES = 2000
_MOST = 1 << 25  # weights of resampled users held at a time


def check_run(
    name_or_path: str | Path | Checkpoint, data: PreparedData, filter_seen: bool, query_time: bool = False
) -> None:
    """Refuses a run that was tested by another protocol than the one that the comparison would have.

    A run on another split may have been trained on what is a test target here. A model without run.json says nothing.

    Args:
        name_or_path: folder or Hub id of a model, or a step of a run.
        filter_seen: whether the comparison leaves out the items of a user's own history.
        query_time: `request_choice`.

    Raises:
        ValueError: naming what differs.
    """
    checkpoint = name_or_path if isinstance(name_or_path, Checkpoint) else Checkpoint(name_or_path)
    reports = (run_of(checkpoint) or {}).get("reports", [])
    here = protocol_of(data, "test", filter_seen, query_time=query_time)
    other = differing(reports[0]["protocol"], here) if reports else []
    if other:
        raise ValueError(
            f"{checkpoint.name} was tested by another protocol than this comparison; there and here "
            f"{'; '.join(other)}. Compare runs on the prepared log that they were trained on (--data), with seen items "
            "as they had them (--seen)."
        )


def compare(
    entries: Mapping[str, Sequence[Scorer]],
    data: PreparedData,
    split: str = "test",
    k: int = 10,
    filter_seen: bool | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Ranks the targets with all scorers and compares the entries with the first one.

    Args:
        entries: by name one scorer, or several that differ in their seed only.
        split: "test" or "validation".
        k: cut-off of HR and NDCG.
        filter_seen: see `seen_choice`.
        samples: resamples of users, and of seeds where an entry has several, for the intervals.
        seed: of the resamples.

    Returns:
        `protocol` (of `evaluate`), `num_targets`, `k`, `samples`, and `entries`, a list of `name`, `scorers` (how many)
        and `metrics`: HR, NDCG, and for entries with probabilities, if the first has some, `loss` in nats over the
        targets that all of these know. Of each metric `value`, the mean over users and seeds, and for all entries but
        the first `difference` from the first one's value, its `standard_error` over users, and `low` and `high`, its
        95 % interval over users and seeds.

    Raises:
        ValueError: for less than two entries, or as `evaluate`.
    """
    if len(entries) < 2 or not all(entries.values()):
        raise ValueError(f"{len(entries)} to compare; give two entries or more, each with a model at least.")
    all_scorers = [scorer for scorers in entries.values() for scorer in scorers]
    filter_seen = seen_choice(filter_seen, [getattr(one, "filter_seen", None) for one in all_scorers], data)
    request_choice(all_scorers)
    gains: dict[str, dict[str, np.ndarray]] = {f"hr@{k}": {}, f"ndcg@{k}": {}, "loss": {}}
    report: dict[str, Any] = {}
    for name, scorers in entries.items():
        ks = sorted({*DEFAULT_KS, k})
        found_by = [evaluate_each(scorer, data, split, ks, filter_seen, progress) for scorer in scorers]
        report, ranks = found_by[-1][0], np.stack([kept.ranks for _, kept in found_by])
        gains[f"hr@{k}"][name], gains[f"ndcg@{k}"][name] = hit_rate(ranks, k), ndcg(ranks, k)
        gains["loss"][name] = np.stack([kept.losses for _, kept in found_by])
    gains["loss"] = _where_all_have_one(gains["loss"])
    found: list[dict[str, Any]] = [
        {"name": name, "scorers": len(scorers), "metrics": {}} for name, scorers in entries.items()
    ]
    first = found[0]["name"]
    for metric, of_entries in gains.items():
        for one in found:
            if one["name"] not in of_entries:
                continue
            values = of_entries[one["name"]]
            one["metrics"][metric] = {"value": float(values.mean())}
            if one["name"] != first:
                one["metrics"][metric] |= _difference(values, of_entries[first], samples, seed)
    facts = {name: report[name] for name in ("protocol", "num_targets", "num_targets_outside_vocabulary")}
    return {**facts, "k": k, "samples": samples, "entries": found}


def _where_all_have_one(losses: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The losses of the entries that have any, over the targets that all of these know; none if the first entry has
    none, with which they would be compared."""
    having = {name: of_one for name, of_one in losses.items() if not np.isnan(of_one).all()}
    if next(iter(losses)) not in having:
        return {}
    known = ~np.isnan(np.concatenate(list(having.values()))).any(0)
    return {name: of_one[:, known] for name, of_one in having.items()} if known.any() else {}


def _difference(values: np.ndarray, base: np.ndarray, samples: int, seed: int) -> dict[str, float]:
    """Mean of `(S, M)` less mean of `(S', M)`, its standard error over users and its interval over users and seeds."""
    per_user = values.mean(0) - base.mean(0)
    users = len(per_user)
    rng = np.random.default_rng(seed)
    drawn: list[np.ndarray] = []
    at_a_time = max(_MOST // max(users, 1), 1)
    for start in range(0, samples, at_a_time):
        number = min(at_a_time, samples - start)
        weights = rng.multinomial(users, np.full(users, 1 / users), number) / users
        means = []
        for one in (values, base):
            of_seeds = weights @ one.T
            chosen = rng.integers(0, len(one), (number, len(one)))
            means.append(np.take_along_axis(of_seeds, chosen, 1).mean(1))
        drawn.append(means[0] - means[1])
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return {
        "difference": float(per_user.mean()),
        "standard_error": standard_error(per_user),
        "low": float(low),
        "high": float(high),
    }


def _shown(metric: str) -> str:
    return "loss (nats)" if metric == "loss" else metric.upper()


def table(comparison: dict[str, Any]) -> str:
    """A comparison as a Markdown table under a line that states the protocol."""
    first = comparison["entries"][0]["name"]
    lines = [protocol_line(comparison), "", f"Differences from {first}, with 95 % intervals over users and seeds.", ""]
    names = {name: _shown(name) for name in comparison["entries"][0]["metrics"]}
    heads = [head for name in names.values() for head in (name, "difference")]
    lines += ["| | runs | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for one in comparison["entries"]:
        cells = []
        for name in names:
            found = one["metrics"].get(name)
            if found is None:
                cells += ["–", "–"]
                continue
            cells.append(f"{found['value']:.4f}")
            cells.append(
                f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})" if "low" in found else "–"
            )
        lines.append(f"| {one['name']} | {one['scorers']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(comparison: dict[str, Any], folder: str | Path) -> list[Path]:
    """Draws the differences and their intervals as comparison.png and comparison.svg.

    Returns:
        The files.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    first, *others = comparison["entries"]
    names = list(first["metrics"])
    figure = blank(4.8 * len(names), 1.4 + 0.4 * len(others))
    places = range(len(others))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False, sharey=True)[0], names, strict=True):
        having = [(place, one["metrics"][name]) for place, one in enumerate(others) if name in one["metrics"]]
        found = [of_one for _, of_one in having]
        values = [one["difference"] for one in found]
        # Rounding may put an end of an interval without width on the other side.
        sides = [[max(v - one["low"], 0.0) for v, one in zip(values, found, strict=True)]]
        sides += [[max(one["high"] - v, 0.0) for v, one in zip(values, found, strict=True)]]
        axes.axvline(0, color="0.5", linewidth=1)
        axes.errorbar(values, [place for place, _ in having], xerr=sides, fmt="o", color=COLOURS[0], capsize=3)
        axes.set_yticks(places, [one["name"] for one in others])
        axes.set_ylim(len(others) - 0.5, -0.5)
        axes.set_xlabel(f"{_shown(name)} less that of {first['name']} ({first['metrics'][name]['value']:.3f})")
        axes.spines[["top", "right"]].set_visible(False)
    return save(figure, folder, "comparison")
