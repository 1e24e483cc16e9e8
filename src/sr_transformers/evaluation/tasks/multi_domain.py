"""Multi-domain transfer: test targets whose domain occurs in the user's history (mix) or does not (diff).

The history is what the models are shown, the most recent items: 50 in arXiv 2311.11351.
"""

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import UNK_ID
from sr_transformers.evaluation.tasks.ranking_pass import ranking_pass
from sr_transformers.evaluation.tasks.task import Group, NotRun, Plan, TaskOptions

_DOMAINS_SHOWN = 5  # with more of them, groups by domain would be small and many
KEY = "multi_domain"


def plan(data: PreparedData, options: TaskOptions) -> Plan | NotRun:
    """Needs a log with a domain column of at least two domains. With up to 5 they are shown one by one too.

    Items outside the vocabulary are no part of the history: no model can read them.
    """
    if not data.domain_names:
        return NotRun("the log has no domains; prepare it with --domain-column NAME if it has such a column.")
    if len(data.domain_names) < 2:
        return NotRun(f"the log has one domain only ({data.domain_names[0]}).")
    rows, length = data.targets("test"), options.domain_history
    domain = np.empty(len(rows), np.int64)
    known = np.empty(len(rows), bool)
    for index, (user, position) in enumerate(rows.tolist()):
        readable = data.items(user, position) != UNK_ID
        domain[index] = data.domains(user, position + 1, position)[0]
        known[index] = domain[index] in data.domains(user, position)[readable][-length:]
    groups = [_group("mix", known, None), _group("diff", ~known, "mix")]
    if len(data.domain_names) <= _DOMAINS_SHOWN:
        for code, name in enumerate(data.domain_names):
            groups.append(_group(f"mix, {name}", known & (domain == code), None))
            groups.append(_group(f"diff, {name}", ~known & (domain == code), f"mix, {name}"))
    return Plan(
        f"Test targets from the {length} most recent items, by whether the target's domain occurs among them (mix) or "
        "does not (diff).",
        (ranking_pass(KEY, data, rows, options, lambda _, past: past.last(length)),),
        tuple(groups),
        options.headlines,
        {"domains": list(data.domain_names)},
    )


def _group(name: str, inside: np.ndarray, base: str | None) -> Group:
    return Group(name, KEY, KEY, np.nonzero(inside)[0], base)
