import pytest

from sr_transformers.training.recipe import Recipe
from sr_transformers.training.unread import refuse_unread


def test_an_option_that_nothing_reads_is_refused_and_one_that_something_reads_is_not():
    read = {
        "num_successors": {"history": ["items", "mix"]},
        "negative_power": {"num_negatives": 5},
        "warmup_steps": {"lr_scheduler_type": "linear"},
        "eval_steps": {"eval_strategy": "steps"},
        "save_steps": {"save_strategy": "steps"},
        "sgd_learning_rate": {"switch_optimizer": True},
        "adam_beta1": {"optim": "sgd", "num_negatives": 5, "table_updates": "lazy_adam"},
    }
    off = {"switch_optimizer": False, "lr_scheduler_type": "constant", "optim": "adagrad"}
    for key, more in read.items():
        unread, used = Recipe("x", {}, dict(off)), Recipe("x", {}, dict(off))
        for name, value in more.items():
            used.set(name, value)
        with pytest.raises(ValueError, match=f"^--{key}: nothing reads it with the rest of the recipe; it needs "):
            refuse_unread(unread, {"seed", key})
        refuse_unread(used, {"seed", key})
    refuse_unread(Recipe(), set(read) - {"num_successors", "negative_power", "eval_steps", "save_steps"})  # by default
