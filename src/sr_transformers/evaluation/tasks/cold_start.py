"""Cold-start users: users whom training never saw, shown with shorter and shorter histories.

The last interaction is the target, the history is the most recent 50, 40, ..., 5 interactions before it (arXiv
2311.11351). The users are fixed once, by the longest length. The released code chooses them anew for every length,
which mixes the effect of the length with that of other users; those numbers are given as well.
"""

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import UNK_ID
from sr_transformers.evaluation.tasks.ranking_pass import ranking_pass
from sr_transformers.evaluation.tasks.task import Group, NotRun, Pass, Plan, TaskOptions


def plan(data: PreparedData, options: TaskOptions) -> Plan | NotRun:
    """Needs users whom training never saw (split "paper" or "temporal") with at least as many items before the last one
    as the longest history. These are known items, so that "5" means 5 items that the model can read."""
    longest = options.cold_user_lengths[0]
    unseen = data.unseen_users
    if not len(unseen):
        return NotRun(
            f"the split {data.manifest['split']} trains on every user; prepare the log with --split paper, which keeps "
            "20 % of the users out of training."
        )
    known = np.array([(data.items(user, int(data.lengths[user]) - 1) != UNK_ID).sum() for user in unseen.tolist()])
    fixed = unseen[known >= longest]
    if not len(fixed):
        return NotRun(
            f"none of the {len(unseen)} users outside training has {longest} known items before the last interaction; "
            "pass shorter lengths (--cold-user-lengths)."
        )
    passes, same_users, own_users = [], [], []
    base = f"last {longest}"
    for length in options.cold_user_lengths:
        users = unseen[known >= length]
        one = _pass(data, users, length, options)
        passes.append(one)
        rows = np.nonzero(np.isin(users, fixed))[0]
        name = f"last {length}"
        facts = {"length": length}
        same_users.append(Group(name, one.key, one.key, rows, None if name == base else base, facts))
        own_users.append(
            Group(f"{name}, own users", one.key, one.key, None, None if name == base else f"{base}, own users", facts)
        )
    return Plan(
        f"The last interaction of users outside training, from their most recent items only. The {len(fixed)} users "
        f"with {longest} known items or more before it at every length; 'own users' are, as in the released code, all "
        "that have the length's.",
        tuple(passes),
        (*same_users, *own_users),
        options.headlines,
        {"users_outside_training": len(unseen), "users_fixed": len(fixed)},
    )


def _pass(data: PreparedData, users: np.ndarray, length: int, options: TaskOptions) -> Pass:
    rows = np.stack([users, data.lengths[users] - 1], axis=1)
    return ranking_pass(f"cold_start/{length}", data, rows, options, lambda _, past: past.last(length))
