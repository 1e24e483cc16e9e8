"""What a study found, in plain sentences with numbers: the same in the report, in `advise` and on the card."""

from typing import Any

METRIC_NAMES = {"ndcg@10": "NDCG@10", "hr@10": "HR@10"}


def parameter(document: dict[str, Any], name: str, digits: int = 3) -> str:
    """A parameter with its interval, or without one and saying so."""
    value, bounds = document["params"][name], document["intervals"][name]
    if bounds is None:
        return f"{value:.{digits}g} (no interval)"
    return f"{value:.{digits}g} [{bounds[0]:.{digits}g}, {bounds[1]:.{digits}g}]"


def sentences(document: dict[str, Any]) -> list[str]:
    """The findings of an analysis document, one per sentence group."""
    found = []
    laws, held = document["laws"], document["held_out"]
    if "n" in laws:
        one = laws["n"]
        law = f"Loss against size, {document['fraction_of_users']:.0%} of the users, {document['epochs']:g} epochs"
        if one["status"] == "converged":
            found.append(
                f"{law}: L = E + A / N^alpha with E {parameter(one, 'E')} and alpha {parameter(one, 'alpha')}."
            )
            bounds = one["intervals"]["alpha"]
            if bounds:
                inside = bounds[0] <= 0.121 <= bounds[1]
                found.append(
                    f"The paper's alpha on ML-20M, .121, lies {'inside' if inside else 'outside'} this interval."
                )
        else:
            found.append(f"{law}: the form L = E + A / N^alpha does not describe these runs: {one['reason']}")
        found += _forms(one)
    for name, label in (("n", "loss"), *METRIC_NAMES.items()):
        if name in held:
            found.append(_held(held[name], label))
    if "joint" in laws:
        one = laws["joint"]
        if one["status"] == "converged":
            found.append(f"Size and data together: alpha {parameter(one, 'alpha')}, beta {parameter(one, 'beta')}, "
                         f"E {parameter(one, 'E')}.")  # fmt: skip
        else:
            found.append(f"The joint law of size and data is not determined by these runs: {one['reason']}")
    choice = document["bottleneck"]
    if choice:
        found.append(
            f"At N = {choice['N']:,.0f} and D = {choice['D']:,.0f} twice the data would gain "
            f"{choice['gain_from_data']:.3f} nats, twice the size {choice['gain_from_size']:.3f}: "
            f"the bottleneck is {choice['bottleneck']}."
        )
    if document["compute_optimal"]:
        best = document["compute_optimal"][-1]
        found.append(
            f"A hundred times the compute of the costliest run ({best['flops']:.1e} FLOPs, {best['head_share']:.0%} of "
            f"them for the head) would be best spent on N = {best['N']:,.0f} and D = {best['D']:,.0f}."
        )
    if "repeated" in laws:
        one = laws["repeated"]
        if one["status"] == "converged":
            rows = document["epochs_worth"]
            few, many = min(row["epochs"] for row in rows), max(row["epochs"] for row in rows)
            found.append(
                f"Repeated data: R_D {parameter(one, 'R_D')} (about 15 in language); on all of the data doubling the "
                f"epochs gains less than 0.01 nats from epoch {few:g} to {many:g} on, by size."
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


def _forms(one: dict[str, Any]) -> list[str]:
    rows = [row for row in one["comparison"] if row["aicc"] is not None]
    if len(rows) < 2:
        return []
    best, second = rows[0], rows[1]
    gap = second["aicc"] - best["aicc"]
    strength = "clearly" if gap > 4 else "by a little that decides nothing"
    return [f"By AICc the form {best['law']} is ahead of {second['law']} {strength} (difference {gap:.1f})."]


def _held(one: dict[str, Any], label: str) -> str:
    rows = one["rows"]
    errors = [abs(row["relative_error"]) for row in rows]
    inside = [row["inside"] for row in rows if row["inside"] is not None]
    text = (
        f"{label[0].upper() + label[1:]} of the two largest sizes, predicted from the smaller ones ({one['reach']:.0f} "
        f"times the largest fitted N): off by {min(errors):.1%} to {max(errors):.1%}"
    )
    if inside:
        return f"{text}; {sum(inside)} of {len(inside)} runs inside the 95 % interval."
    return f"{text}; no interval: {one['no_intervals']}"
