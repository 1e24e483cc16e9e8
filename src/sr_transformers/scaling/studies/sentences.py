"""What a study found, in plain sentences with numbers: the same in the report, in `advise` and on the card."""

import math
from typing import Any

from sr_transformers.scaling.laws.fitting import DEGENERATE
from sr_transformers.scaling.laws.forms import TOGETHER

METRIC_NAMES = {"ndcg@10": "NDCG@10", "hr@10": "HR@10"}


PAPER_ALPHA = 0.121  # on ML-20M
_NOTHING_LOST = " Models too large for their data lose no worth: R_N is at its upper bound."
_NO_EFFECT = 0.0011  # an exponent at its lower bound, rounding aside
_LARGER = 1.05  # times the largest size fitted from which on a larger size is meant
_FAR = 3.0  # times the data measured from which on an extrapolation is called one


def parameter(document: dict[str, Any], name: str) -> str:
    """A parameter with its interval, to a tenth of the interval's width; or without one and saying so.

    >>> parameter({"params": {"E": 3.168}, "intervals": {"E": [7.3e-07, 6.581]}}, "E")
    '3.2 [0.0, 6.6]'
    """
    value, bounds = document["params"][name], document["intervals"][name]
    if bounds is None:
        return f"{value:.3g} (no interval)"
    width = bounds[1] - bounds[0]
    digits = max(1 - math.floor(math.log10(width)), 0) if width > 0 else 6
    return f"{value:,.{digits}f} [{bounds[0]:,.{digits}f}, {bounds[1]:,.{digits}f}]"


def rounded(value: float) -> str:
    """Three digits, written out.

    >>> rounded(2_407_382_946.1), rounded(156_158.0), rounded(0.01234)
    ('2,410,000,000', '156,000', '0.0123')
    """
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 1000 else f"{value:.3g}"


def agreeing(choice: dict[str, Any]) -> str:
    """How sure a bottleneck is."""
    share = choice["agreeing_draws"]
    return "no interval for this" if share is None else f"{share:.0%} of the refits agree"


def sentences(document: dict[str, Any]) -> list[str]:
    """The findings of an analysis document, one per sentence group; what speaks against calling them laws first."""
    found = [caveat(document["reservations"])] if document["reservations"] else []
    if document["longer"]:
        gains = (f"{one['gain']:.3f} at N = {one['N']:,}{_part(one['fraction'])}" for one in document["longer"])
        found.append(f"What twice the epochs of a run, or more, still gain on validation, in nats: {', '.join(gains)}.")
    laws, held = document["laws"], document["held_out"]
    if "n" in laws:
        one = laws["n"]
        law = f"Loss against size, {document['fraction_of_users']:.0%} of the users, {duration_of(document['epochs'])}"
        if one["status"] == "converged":
            found.append(
                f"{law}: L = E + A / N^alpha with E {parameter(one, 'E')} and alpha {parameter(one, 'alpha')}."
            )
            if one["misfit"]:
                found.append(_misfit("The law of size", one["misfit"]))
            if one["intervals"]["alpha"]:
                found.append(_against_paper(*one["intervals"]["alpha"]))
        else:
            found.append(f"{law}: the form L = E + A / N^alpha does not describe these runs: {one['reason']}")
        found += _forms(one)
        found += _which_size(laws)
    for name, label in (("n", "loss"), *METRIC_NAMES.items()):
        if name in held:
            found.append(_held(held[name], label))
    found += _of_data(laws)
    found += _together(document)
    if document["closest"] in held:
        one = held[document["closest"]]
        found.append(_predicted(one, _from_little(one["reaches"])))
    if document["floor"]:
        found.append(_floor(document["floor"]))
    choice = document["bottleneck"]
    if choice:
        found.append(
            f"At N = {choice['N']:,.0f} and D = {choice['D']:,.0f} twice the data would gain "
            f"{choice['gain_from_data']:.3f} nats, twice the size {choice['gain_from_size']:.3f}: "
            f"the bottleneck is {choice['bottleneck']} ({agreeing(choice)})."
        )
    if document["compute_optimal"]:
        found.append(_best_spent(document["compute_optimal"][-1]))
    if "repeated" in laws:
        one = laws["repeated"]
        if one["status"] == "converged" and one["misfit"]:
            found.append(_misfit("The law of repeated data", one["misfit"]))
        elif one["status"] == "converged" and _holds_everything(one["intervals"]["R_D"]):
            found.append(
                "The law of repeated data fits these runs, but its interval of R_D holds everything from worthless "
                "repeats to repeats as good as new data."
            )
        elif one["status"] == "converged":
            rows = document["epochs_worth"]
            few, many = min(row["epochs"] for row in rows), max(row["epochs"] for row in rows)
            since = f"{few:g} on" if few == many else f"{few:g} to {many:g} on, by size"
            found.append(
                f"Repeated data: R_D {parameter(one, 'R_D')} (about 15 in language): the second epoch over the same "
                f"data is worth {_worth(one, 2)} as much as new data, the tenth {_worth(one, 10)}; on all of the data "
                f"doubling the epochs gains less than 0.01 nats from epoch {since}."
                + (_NOTHING_LOST if "R_N" in one["fixed"] else f" R_N is {parameter(one, 'R_N')}.")
            )
        else:
            found.append(f"The law of repeated data is not determined by these runs: {one['reason']}")
    agreement = document["agreement"]
    if "ndcg@10" in agreement:
        found.append(
            f"Loss and NDCG@10 rank the {agreement['num_runs']} runs with a Spearman correlation of "
            f"{agreement['ndcg@10']:.2f} (-1: they agree)."
        )
    return found


def _of_data(laws: dict[str, Any]) -> list[str]:
    """The laws of data at single sizes, in one sentence."""
    sizes = {name: law for name, law in laws.items() if name.startswith("d-")}
    said = [
        f"at {name.removeprefix('d-')} E {parameter(law, 'E')} and beta {parameter(law, 'beta')}"
        for name, law in sizes.items()
        if law["status"] == "converged"
    ]
    found = [f"Loss against data, L = E + B / D^beta: {'; '.join(said)}."] if said else []
    return found + [
        f"No law of data is determined at {name.removeprefix('d-')}: {law['reason']}"
        for name, law in sizes.items()
        if law["status"] != "converged"
    ]


def _together(document: dict[str, Any]) -> list[str]:
    """The law of size and data: which form, or why none."""
    laws = document["laws"]
    if document["closest"] is None:
        return []
    one = laws[document["closest"]]
    if document["together"] is None:
        if one["status"] == "converged":
            what = f"The form of size and data that is closest to these runs, {one['formula']},"
            return [_misfit(what, one["misfit"])]
        return [f"The law of size and data is not determined by these runs: {one['reason']}"]
    found = [f"Size and data together: {one['formula']} with alpha {parameter(one, 'alpha')}, beta "
             f"{parameter(one, 'beta')}, E {parameter(one, 'E')}."]  # fmt: skip
    rows = [row for row in laws.get("joint", one)["comparison"] if row["law"] in TOGETHER]
    return found + _forms({"comparison": rows})


def _misfit(what: str, misfit: dict[str, float]) -> str:
    return (
        f"{what} misses these runs by {misfit['residuals']:.2%}, and runs whose seed alone differs are only "
        f"{misfit['seeds']:.2%} apart: it is no law of them, and nothing is concluded from it."
    )


def _part(fraction: float) -> str:
    return "" if fraction == 1 else f" on {fraction:.0%} of the users"


def duration_of(epochs: float | None) -> str:
    """Of the runs of a study (`schedule_of`).

    >>> duration_of(3.0), duration_of(None)
    ('3 epochs', 'each size for its own number of epochs')
    """
    return "each size for its own number of epochs" if epochs is None else f"{epochs:g} epochs"


def caveat(reservations: list[dict[str, Any]]) -> str:
    """One sentence that says why the fits of a study are no laws yet.

    >>> caveat([{"kind": "missing", "reason": "were planned and not run", "names": ["98k-e3-s1"]}])
    'These fits describe the runs made and are not called laws, because some were planned and not run: 98k-e3-s1.'
    """
    return f"These fits describe the runs made and are not called laws, because {because(reservations)}."


def because(reservations: list[dict[str, Any]]) -> str:
    """The reasons with the names of what they are about."""
    return "; ".join(f"some {one['reason']}: {_listed(one['names'])}" for one in reservations)


def _listed(names: list[str], most: int = 12) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def worth_of_epoch(epoch: float, r: float) -> float:
    """What an epoch over old data adds to D', beside one over as many new interactions; 1 for the first.

    >>> [round(worth_of_epoch(epoch, 15.0), 2) for epoch in (1, 2, 10, 30)]
    [1.0, 0.97, 0.57, 0.15]
    """
    return 1.0 if epoch <= 1 else r * (math.exp((2 - epoch) / r) - math.exp((1 - epoch) / r))


def _worth(one: dict[str, Any], epoch: int) -> str:
    text, bounds = f"{worth_of_epoch(epoch, one['params']['R_D']):.0%}", one["intervals"]["R_D"]
    if bounds is None:
        return text
    low, high = (worth_of_epoch(epoch, bound) for bound in bounds)
    return f"{text} [{low:.0%} to {high:.0%}]"


def _holds_everything(bounds: list[float] | None) -> bool:
    """Whether an interval of R_D says nothing: repeats worth less than a tenth of the data, or all of a thousand."""
    return bounds is not None and bounds[0] < 0.1 and bounds[1] > 1000


def _against_paper(low: float, high: float) -> str:
    if low <= _NO_EFFECT and high >= PAPER_ALPHA:
        return (
            f"This interval reaches down to no effect of size at all: it neither supports nor contradicts the paper's "
            f"alpha on ML-20M, {PAPER_ALPHA}."
        )
    where = "inside" if low <= PAPER_ALPHA <= high else "outside"
    return f"The paper's alpha on ML-20M, {PAPER_ALPHA}, lies {where} this interval."


def _best_spent(best: dict[str, Any]) -> str:
    parts = []
    for name in ("N", "D"):
        bounds = best[f"{name}_interval"]
        between = f" [{rounded(bounds[0])} to {rounded(bounds[1])}]" if bounds else " (no interval)"
        parts.append(f"{name} = {rounded(best[name])}{between}")
    text = (
        f"A hundred times the compute of the costliest run ({best['flops']:.1e} FLOPs, {best['head_share']:.0%} of "
        f"them for the head) would be best spent on {' and '.join(parts)}, seen {best['passes']:g} times"
    )
    if best["times_measured_D"] > _FAR:
        return f"{text}; that is {rounded(best['times_measured_D'])} times the data measured, a far extrapolation."
    return f"{text}."


def _forms(one: dict[str, Any]) -> list[str]:
    rows = [row for row in one["comparison"] if row["aicc"] is not None]
    if len(rows) < 2:
        return []
    best, second = rows[0], rows[1]
    gap = second["aicc"] - best["aicc"]
    strength = "clearly" if gap > 4 else "by a little that decides nothing"
    return [f"By AICc the form {best['law']} is ahead of {second['law']} {strength} (difference {gap:.1f})."]


def _which_size(laws: dict[str, Any]) -> list[str]:
    """Whether the loss follows the blocks alone or the item table too."""
    if "n-with-table" not in laws:
        return []
    blocks, whole = (
        next((row["aicc"] for row in laws[name]["comparison"] if row["law"] == "n"), None)
        for name in ("n", "n-with-table")
    )
    if blocks is None or whole is None:
        return []
    gap = whole - blocks
    better = "the blocks alone" if gap > 0 else "the blocks and the item table together"
    strength = "clearly" if abs(gap) > 4 else "by a little that decides nothing"
    return [f"As the size, {better} describe the loss better, {strength} (AICc differs by {abs(gap):.1f})."]


def _held(one: dict[str, Any], label: str) -> str:
    start = f"{label[0].upper() + label[1:]} of the two largest sizes, predicted from the smaller ones"
    return _predicted(one, f"{start} ({one['reach']:.0f} times the largest fitted N)")


def _from_little(reaches: dict[str, float]) -> str:
    beyond = f", up to {reaches['N']:.0f} times the largest N of these" if reaches["N"] > _LARGER else ""
    return f"Loss on all of the data, predicted from the runs on at most {1 / reaches['D']:.0%} of it{beyond}"


def _predicted(one: dict[str, Any], what: str) -> str:
    if one["status"] == DEGENERATE:  # what it predicts differs from machine to machine
        return f"{what}: no prediction, as the fit is degenerate: {one['reason']}"
    errors = [abs(row["relative_error"]) for row in one["rows"]]
    inside = [row["inside"] for row in one["rows"] if row["inside"] is not None]
    text = f"{what}: off by {min(errors):.2%} to {max(errors):.2%}"
    if inside:
        return f"{text}; {sum(inside)} of {len(inside)} runs inside the 95 % interval."
    return f"{text}; no interval: {one['no_intervals']}"


def _floor(known: dict[str, Any]) -> str:
    text = (
        f"The floor of this log is known: whoever it was sampled from has a loss of {known['loss']:.3f} +- "
        f"{known['standard_error']:.3f} nats"
    )
    for law, name in (*((form, "the law of size and data") for form in TOGETHER), ("n", "the law of size")):
        if law in known["fitted"]:
            low, high = known["fitted"][law]
            text += f"; the interval of E of {name}, {low:.3f} to {high:.3f}, "
            text += "holds it" if known["held"][law] else "does not hold it"
    return f"{text}." if known["fitted"] else f"{text}; no fitted E has an interval to hold it."
