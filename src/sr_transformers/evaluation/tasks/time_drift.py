"""Time drift: how a model ages. Test targets by the months that have passed since the split."""

import numpy as np

from sr_transformers.data import splits
from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.tasks.ranking_pass import TEST, test_pass
from sr_transformers.evaluation.tasks.task import Group, NotRun, Plan, TaskOptions, month_length


def plan(data: PreparedData, options: TaskOptions) -> Plan | NotRun:
    """Needs a split at a moment ("temporal"): elsewhere training data is as young as the targets."""
    if data.manifest["split"] != splits.TEMPORAL:
        return NotRun(
            f"the split {data.manifest['split']} has no moment after which months could be counted; prepare the log "
            "with --split temporal."
        )
    counts = data.manifest["counts"]
    month = month_length([counts["first"], counts["last"]], options.month, data.manifest["times"]["unit"])
    if month is None:
        return NotRun(
            f"the timestamps ({counts['first']} to {counts['last']}) are not in seconds since 1970 or a thousandth of "
            "these; say how long a month is in their unit (--month)."
        )
    rows = data.targets("test")
    moments = np.array([data.timestamps(user, position + 1, position)[0] for user, position in rows.tolist()])
    passed = (moments - counts["test_from"]) // month
    names = {number: f"month {number + 1}" for number in sorted(set(passed.tolist()))}
    first = next(iter(names.values()))
    groups = [
        Group(name, TEST, TEST, np.nonzero(passed == number)[0], None if name == first else first)
        for number, name in names.items()
    ]
    return Plan(
        "Test targets (a user's first interaction after the split) by the months between the split and the target.",
        (test_pass(data, options),),
        tuple(groups),
        options.headlines,
        {"month": month},
    )
