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
    model, training, settings = record.recipe["model"], record.recipe["training"], plan["settings"]
    pairs = {
        "shape (layers, width)": (
            (plan["layers"], plan["width"]),
            _of_model(model, "num_hidden_layers", "hidden_size"),
        ),
        "seed": (plan["seed"], record.seed),
        "epochs": (plan["epochs"], training["num_train_epochs"]),
        "part of the data": ((plan["of"], plan["fraction"]), (part["of"], part["fraction"])),
    }
    pairs |= {key: (value, training[key] if key in training else _of_model(model, key)[0])
              for key, value in settings.items()}  # fmt: skip
    if plan.get("learning_rate") is not None and "learning_rate" not in settings:
        pairs["learning rate"] = (plan["learning_rate"], training["learning_rate"])
    if plan.get("dropout") is not None and "residual_dropout" not in settings:
        pairs["dropout"] = (plan["dropout"], _of_model(model, "residual_dropout")[0])
    for what, (planned, found) in pairs.items():
        if not _same(planned, found):
            raise ValueError(
                f"{path} is not the record of the run that is planned there: its {what} is {found}, and the plan says "
                f"{planned}. Remove the folder {path.parent.name}, and `sr-transformers scaling run` trains that run."
            )


def _of_model(model: Mapping[str, Any], *keys: str) -> tuple[Any, ...]:
    """Values of a recipe's model, those that it leaves out as the model has them."""
    if not all(key in model for key in keys):
        from sr_transformers.lsrm.configuration_lsrm import LSRMConfig  # imports transformers

        model = {**LSRMConfig().to_dict(), **model}
    return tuple(model[key] for key in keys)


def _same(planned: Any, found: Any) -> bool:
    if isinstance(planned, float) and isinstance(found, int | float):
        return math.isclose(planned, found, rel_tol=_SAME_RATE)
    return json.dumps(planned) == json.dumps(found)  # of JSON a tuple is a list
