"""Keys of a recipe that are given as options though nothing reads them with the rest of the recipe.

In a file such a key may stand: a recipe names every value that could move a number. Who gives it by hand expects that
it does something.
"""

from collections.abc import Iterable
from typing import Any

from sr_transformers.training.preflight import NEVER_WARM
from sr_transformers.training.recipe import Recipe, default_of
from sr_transformers.training.row_updates import LAZY_ADAM

_WITHOUT_MOMENTS = ("sgd", "adagrad", "rmsprop", "adafactor")


def refuse_unread(recipe: Recipe, given: Iterable[str], flag: str = "--") -> None:
    """Refuses such keys.

    Args:
        recipe: with the values of the options.
        given: keys that were options.
        flag: how such an option begins.

    Raises:
        ValueError: naming the first one, and what would read it.
    """

    def value(key: str) -> Any:
        return {**recipe.model, **recipe.training}.get(key, default_of(key))

    schedule, optimizer = value("lr_scheduler_type"), value("optim")
    moments = optimizer not in _WITHOUT_MOMENTS or value("table_updates") == LAZY_ADAM
    rules = {
        "num_successors": ("mix" in (value("history") or ()), "mix among the parts of history"),
        "negative_power": (value("num_negatives") != 0, "num_negatives"),
        "warmup_steps": (schedule not in NEVER_WARM, f"another lr_scheduler_type than {schedule}"),
        "eval_steps": (value("eval_strategy") == "steps", "eval_strategy steps"),
        "save_steps": (value("save_strategy") == "steps", "save_strategy steps"),
        **dict.fromkeys(("sgd_learning_rate", "sgd_momentum"), (value("switch_optimizer"), "switch_optimizer true")),
        **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), (moments, f"another optim than {optimizer}")),
    }
    for key in given:
        read, needs = rules.get(key, (True, ""))
        if not read:
            raise ValueError(
                f"{flag}{key}: nothing reads it with the rest of the recipe; it needs {needs}. Leave it out."
            )
