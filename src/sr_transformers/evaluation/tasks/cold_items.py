"""Cold-start items: test targets that training met a few times only, or never, by the number of times."""

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.evaluator import target_tokens
from sr_transformers.evaluation.tasks.ranking_pass import TEST, test_pass
from sr_transformers.evaluation.tasks.task import Group, Plan, TaskOptions


def plan(data: PreparedData, options: TaskOptions) -> Plan:
    """Applies to every prepared log. A model of item ids cannot name an item that training never met: it counts as
    missed, and the group shows how many such targets there are."""
    targets = target_tokens(data, data.targets("test"))
    counts = data.item_counts[targets]
    edges = options.cold_item_edges
    lows = (0, 1, *(edge + 1 for edge in edges))
    highs = (0, *edges, int(data.item_counts.max()))
    names = [_name(low, high, edges[-1]) for low, high in zip(lows, highs, strict=True)]
    groups = []
    for name, low, high in zip(names, lows, highs, strict=True):
        inside = (data.item_counts >= max(low, 1)) & (data.item_counts <= high)
        rows = np.nonzero((counts >= low) & (counts <= high))[0]
        base = None if name == names[-1] else names[-1]
        groups.append(Group(name, TEST, TEST, rows, base, {"num_items": int(inside.sum())}))
    return Plan(
        "Test targets by the number of training interactions of the item.",
        (test_pass(data, options),),
        tuple(groups),
        options.headlines,
    )


def _name(low: int, high: int, last_edge: int) -> str:
    if high == 0:
        return "never"
    if low > last_edge:
        return f"more than {last_edge}"
    return f"{low}" if low == high else f"{low} to {high}"
