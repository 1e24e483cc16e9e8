"""Robustness: test targets predicted from perturbed histories.

Each item of a history is hit with a probability (0.3 in arXiv 2311.11351); half of those are replaced by an item drawn
uniformly from the vocabulary, half are deleted. A deletion shortens the history ("deleted"), or, as in the released
code, leaves padding in place of the item ("padded"), which the model reads like an item of its own.
"""

from functools import partial

import numpy as np

from sr_transformers.data.past_inputs import Past
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID
from sr_transformers.evaluation.tasks.ranking_pass import TEST, ranking_pass, test_pass
from sr_transformers.evaluation.tasks.task import Group, Plan, TaskOptions

CLEAN, DELETED, PADDED = "clean", "deleted", "padded"


def perturb(user: int, past: Past, rate: float, vocab_size: int, seed: int, padded: bool) -> Past:
    """The perturbed history; what stays or is replaced keeps its moment.

    What happens to it depends on the seed, the user and the history alone: every model reads the same, and the two
    ways to delete hit the same items.

    Args:
        user: row of the log.
        past: of known items.
        rate: probability that an item is hit.
        padded: put `PAD_ID` where an item is deleted.
    """
    items, rng = past.items, np.random.default_rng([seed, user])
    fate = rng.random(len(items))
    strangers = rng.integers(NUM_SPECIAL, vocab_size, len(items), dtype=np.int32)
    changed = np.where(fate < rate / 2, strangers, items)
    deleted = (fate >= rate / 2) & (fate < rate)
    if padded:
        return past.of(np.where(deleted, np.int32(PAD_ID), changed), np.ones_like(deleted))
    return past.of(changed[~deleted], ~deleted)


def plan(data: PreparedData, options: TaskOptions) -> Plan:
    """Applies to every prepared log. The whole history is perturbed before a model cuts it to its window: where items
    are deleted, a model with a long history reads older ones instead."""
    rate, rows = options.perturbation_rate, data.targets("test")
    ways = {
        name: partial(perturb, rate=rate, vocab_size=data.vocab_size, seed=options.seed, padded=name == PADDED)
        for name in (DELETED, PADDED)
    }
    passes = [ranking_pass(f"robustness/{name}", data, rows, options, way) for name, way in ways.items()]
    groups = [Group(CLEAN, TEST, TEST)]
    groups += [Group(name, one.key, one.key, None, CLEAN) for name, one in zip(ways, passes, strict=True)]
    return Plan(
        f"Each item of a history is hit with probability {rate:g}: half are replaced by uniformly random items, half "
        "are deleted, which shortens the history or, as in the released code, leaves padding in place (padded).",
        (test_pass(data, options), *passes),
        tuple(groups),
        options.headlines,
    )
