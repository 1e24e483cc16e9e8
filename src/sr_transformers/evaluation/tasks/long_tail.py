"""Long-tail items: test targets by the popularity of the item in training.

Items are sorted by training count and cut into groups of equal training mass, G1 the head, G4 the tail (arXiv
2311.11351). Test counts play no part.
"""

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import UNK_ID
from sr_transformers.evaluation.evaluator import target_tokens
from sr_transformers.evaluation.tasks.ranking_pass import TEST, test_pass
from sr_transformers.evaluation.tasks.task import Group, Plan, TaskOptions


def mass_groups(item_counts: np.ndarray, num_groups: int) -> np.ndarray:
    """`(V,)` int64 group of every token, 0 the head; -1 for tokens without training interactions.

    Group g takes the items at which the share of the interactions with more popular items lies in
    [g / num_groups, (g + 1) / num_groups). Items of equal count are in the order of their tokens. An item more popular
    than a whole share leaves the next group empty.

    >>> mass_groups(np.array([0, 0, 4, 2, 2, 1, 1, 1, 1]), 3).tolist()
    [-1, -1, 0, 1, 1, 2, 2, 2, 2]
    """
    order = np.argsort(-item_counts, kind="stable")
    counts = item_counts[order]
    before = np.cumsum(counts) - counts
    groups = np.empty(len(item_counts), np.int64)
    groups[order] = before * num_groups // counts.sum()
    groups[item_counts == 0] = -1
    return groups


def plan(data: PreparedData, options: TaskOptions) -> Plan:
    """Applies to every prepared log. Targets outside the vocabulary have no training count: counted, in no group."""
    targets = target_tokens(data, data.targets("test"))
    count = options.tail_groups
    group_of = mass_groups(data.item_counts, count)
    names = [f"G{g + 1}" + {0: " head", count - 1: " tail"}.get(g, "") for g in range(count)]
    total = data.item_counts.sum()
    groups = []
    for g, name in enumerate(names):
        items = group_of == g
        facts = {
            "num_items": int(items.sum()),
            "training_share": float(data.item_counts[items].sum() / total),
            "largest_training_count": int(data.item_counts[items].max(initial=0)),
        }
        rows = np.nonzero(items[targets])[0]
        groups.append(Group(name, TEST, TEST, rows, names[0] if g else None, facts))
    return Plan(
        f"Test targets by the training count of the item: {count} groups of items with equal shares of the training "
        "interactions, from the most popular to the least.",
        (test_pass(data, options),),
        tuple(groups),
        options.headlines,
        {"targets_outside_vocabulary": int((targets == UNK_ID).sum())},
    )
