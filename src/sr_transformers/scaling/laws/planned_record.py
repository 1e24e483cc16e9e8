"""Whether the record in a run's folder is that of the run which was planned there."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sr_transformers.records import RunRecord

_SAME_RATE = 1e-3  # relative: the bottom of a parabola depends a little on the machine that computed it


def refuse_another(path: Path, record: RunRecord, plan: Mapping[str, Any]) -> None:
    """Refuses a record that is not of the run in whose folder it lies.

    Args:
        path: of the record; its folder is named like the run.
        plan: what was planned (`PlannedRun.describe`); a learning rate or dropout of None was not chosen yet.

    Raises:
        ValueError: naming the file, what differs, and what to do.
    """
    part = record.data.get("fraction") or {"of": "users", "fraction": 1.0}
    recipe, settings = {**record.recipe["model"], **record.recipe["training"]}, plan["settings"]
    pairs = {
        "shape (layers, width)": (
            (plan["layers"], plan["width"]),
            (recipe["num_hidden_layers"], recipe["hidden_size"]),
        ),
        "seed": (plan["seed"], record.seed),
        "epochs": (plan["epochs"], recipe["num_train_epochs"]),
        "part of the data": ((plan["of"], plan["fraction"]), (part["of"], part["fraction"])),
    }
    chosen = {"learning_rate": plan.get("learning_rate"), "residual_dropout": plan.get("dropout")}
    chosen = {key: value for key, value in chosen.items() if value is not None} | settings  # what a block sets wins
    pairs |= {key.replace("_", " "): (value, recipe[key]) for key, value in chosen.items()}
    for what, (planned, found) in pairs.items():
        if not _same(planned, found):
            raise ValueError(
                f"{path} is not the record of the run that is planned there: its {what} is {found}, and the plan says "
                f"{planned}. Remove the folder {path.parent.name}, and `sr-transformers scaling run` trains that run."
            )


def _same(planned: Any, found: Any) -> bool:
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in (planned, found)):
        return math.isclose(planned, found, rel_tol=_SAME_RATE)
    return json.dumps(planned) == json.dumps(found)  # of JSON a tuple is a list
