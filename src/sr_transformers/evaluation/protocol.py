"""By which protocol an evaluation was made: all that moves its numbers, as fields, one line, and a fingerprint."""

from collections.abc import Iterable, Sequence
from typing import Any

from sr_transformers.data import splits
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.protocols import ITEM, PERIOD, TARGETS
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.metrics import DEFAULT_KS
from sr_transformers.fingerprints import FINGERPRINT, with_fingerprint

_ITEMS_DIGITS = 16
TARGETS_OWN = "the target's own"
_UNKNOWN = {PERIOD: "left out of the targets"}


def protocol_of(
    data: PreparedData, split: str, filter_seen: bool, target: str = ITEM, query_time: bool = False
) -> dict[str, Any]:
    """All that is needed to repeat or compare an evaluation.

    Args:
        split: the part, "test" or "validation".
        target: one of `TARGETS`.
        query_time: whether scorers may know when the target happened.

    Returns:
        `data` (the log's name), `protocol` (the named one, where the folder has one and this is what it asks for),
        `interactions` and `items` (fingerprints of what was kept of the log, ties in their order, and of the
        candidates), `order_of_ties`, `filters`, `min_interactions`, `split`, `split_parameters` (the moments of a
        global time split, however they were given), `part`, `target`, `ranking`, `num_items_ranked`, `filter_seen`,
        `ties`, `targets_outside_vocabulary`, with query_time `request_time`, and `fingerprint` of all but the first
        two.
    """
    manifest = data.manifest
    parameters = dict(manifest.get("split_parameters", {}))
    if manifest["split"] == splits.TEMPORAL:
        parameters = {name: manifest["counts"][name] for name in ("validation_from", "test_from")}
    named = manifest.get("protocol") if data.evaluation.get("target") == target else None
    return with_fingerprint(
        {
            "data": manifest["source"]["name"],
            "protocol": named,
            "interactions": manifest["interactions_fingerprint"],
            "items": data.items_fingerprint[:_ITEMS_DIGITS],
            "order_of_ties": "as in the log",
            "filters": manifest["filters"],
            "min_interactions": manifest["min_interactions"],
            "split": manifest["split"],
            "split_parameters": parameters,
            "part": split,
            "target": target,
            "ranking": "full",
            "num_items_ranked": data.vocab_size - NUM_SPECIAL,
            "filter_seen": filter_seen,
            "ties": "against the model",
            "targets_outside_vocabulary": _UNKNOWN.get(target, "counted as missed"),
            **({"request_time": TARGETS_OWN} if query_time else {}),
        }
    )


def seen_choice(choice: bool | None, recorded: Iterable[bool | None], data: PreparedData) -> bool:
    """Whether rankings leave a user's own items out.

    Args:
        choice: what the caller wants; it wins.
        recorded: how the models to be ranked were validated and tested (`filter_seen` of their configurations); None
            for those of which nobody knows. Without any the log decides (`PreparedData.filters_seen`).

    Raises:
        ValueError: without a choice, if the models differ; for a choice that is neither True nor False, or contradicts
            the named protocol of the log.
    """
    if choice is not None and not isinstance(choice, bool):
        raise ValueError(f"filter_seen is {choice!r}; it must be True, False or None.")
    said = {one for one in recorded if one is not None}
    if choice is None and len(said) > 1:
        raise ValueError(
            "of these models some were trained and tested with seen items removed from the ranking and some with them "
            "kept; say which it is to be (--seen remove or --seen keep; filter_seen in Python)."
        )
    return data.filters_seen(choice if choice is not None or not said else said.pop())


def request_choice(scorers: Sequence[Any]) -> bool:
    """Whether scorers are told when the target happened (`query_time`); others beside them may know it as well.

    Raises:
        ValueError: if some are told and some are not: that is easier, and a protocol of its own.
    """
    told = {scorer.name: bool(getattr(scorer, "query_time", False)) for scorer in scorers}
    if len(set(told.values())) > 1:
        raise ValueError(
            f"{', '.join(name for name in told if told[name])} is told when the target happens (query_time), and "
            f"{', '.join(name for name in told if not told[name])} is not: two protocols, whose numbers do not belong "
            "into one table. Evaluate them apart."
        )
    return any(told.values())


def target_choice(target: str | None, data: PreparedData) -> str:
    """What is to be predicted: as the named protocol of the log has it; without one as asked for, or the next item.

    Raises:
        ValueError: for a target that is not known, or contradicts the protocol.
    """
    if target is not None and target not in TARGETS:
        raise ValueError(f"target {target!r} is not known; choose from {', '.join(TARGETS)}.")
    fixed = data.evaluation.get("target", target or ITEM)
    if target not in (None, fixed):
        raise ValueError(
            f"{data.path} was prepared by protocol {data.manifest['protocol']}, whose target is {fixed!r}, and target "
            f"{target!r} was asked for (--target {target}). Leave that out, or prepare the log without --protocol."
        )
    return str(fixed)


def cut_offs(ks: Sequence[int] | None, data: PreparedData) -> Sequence[int]:
    """Cut-offs of the metrics: as the named protocol of the log has them, or some of them; without one as asked for.

    Raises:
        ValueError: for one that the protocol does not have.
    """
    fixed = data.evaluation.get("ks")
    if fixed is None:
        return tuple(dict.fromkeys(ks or DEFAULT_KS))
    other = [k for k in ks or () if k not in fixed]
    if other:
        raise ValueError(
            f"{data.path} was prepared by protocol {data.manifest['protocol']}, whose cut-offs are "
            f"{', '.join(map(str, fixed))}, and {', '.join(map(str, other))} was asked for (--k). Leave that out, or "
            "prepare the log without --protocol."
        )
    return ks or tuple(fixed)


def protocol_line(report: dict[str, Any]) -> str:
    """The protocol of a report in one sentence."""
    protocol = report["protocol"]
    seen = "seen items removed" if protocol["filter_seen"] else "seen items kept"
    of_users, of_items = protocol["min_interactions"], protocol["filters"]["min_item_interactions"]
    core = "" if max(of_users, of_items) == 1 else f"{of_users}-core, "
    if of_users != of_items:
        core = f"core of {of_users} rows a user and {of_items} an item, "
    named = f"protocol {protocol['protocol']}, " if protocol["protocol"] else ""
    ranking = (
        f"{protocol['data']}, {named}{core}{protocol['split']}, {protocol['part']}: full ranking over "
        f"{protocol['num_items_ranked']:,} items, {seen}, ties against the model, "
        + ("the target's own time is known, " if "request_time" in protocol else "")
    )
    return f"{ranking}{_targets(report)}; fingerprint {protocol[FINGERPRINT]}"


def _targets(report: dict[str, Any]) -> str:
    count = report["num_targets"]
    if "num_items" not in report:
        unknown = report["num_targets_outside_vocabulary"]
        return f"{count:,} targets ({unknown:,} outside the vocabulary, counted as missed)"
    items = report["num_items"]
    many = f"{items['all']:,} items, {items['repeated']:,} of them repeated and {items['new']:,} new to the user"
    unknown = report["num_items_outside_vocabulary"]
    if "num_items_seen_left_out" not in report:
        return (
            f"the next baskets of {count:,} users, nothing of them shown: {many} ({unknown:,} outside the vocabulary, "
            "counted as missed)"
        )
    return (
        f"all that {count:,} users did in the period, ranked once at its beginning: {many} (left out: {unknown:,} "
        f"outside the vocabulary, {report['num_items_seen_left_out']:,} seen before)"
    )
