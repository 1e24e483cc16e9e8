"""The record in a run's folder is that of the run."""

import pytest
from made_studies import record

from sr_transformers.scaling.laws.planned_record import refuse_another

PLAN = {"layers": 1, "width": 64, "seed": 1, "epochs": 3.0, "of": "users", "fraction": 1.0, "settings": {},
        "learning_rate": 0.01, "dropout": 0.1}  # fmt: skip


def made(**model):
    found = record("49k")
    found.recipe["model"].update({"residual_dropout": 0.1, **model})
    found.recipe["training"]["optimizer"] = None
    return found


def test_the_run_that_was_planned_is_taken(tmp_path):
    refuse_another(tmp_path / "run.json", made(), PLAN)
    refuse_another(tmp_path / "run.json", made(), {**PLAN, "learning_rate": None, "dropout": None})
    refuse_another(tmp_path / "run.json", made(), {**PLAN, "learning_rate": 0.010001})  # of another machine
    refuse_another(tmp_path / "run.json", made(), {**PLAN, "epochs": 3})
    dry = {**PLAN, "settings": {"residual_dropout": [0.0, 0.0], "optimizer": None}, "dropout": 0.3}
    refuse_another(tmp_path / "run.json", made(residual_dropout=[0.0, 0.0]), dry)


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        (
            {"layers": 4, "width": 32},
            r"its shape \(layers, width\) is \(1, 64\), and the plan says \(4, 32\)",
        ),  # same N
        ({"seed": 2}, "its seed is 1, and the plan says 2"),
        ({"fraction": 0.5}, "its part of the data is"),
        ({"learning_rate": 0.02}, "its learning rate is 0.01, and the plan says 0.02"),
        ({"dropout": 0.2}, "its residual dropout is 0.1, and the plan says 0.2"),
        ({"settings": {"optimizer": "muon"}}, "its optimizer is None, and the plan says muon"),
    ],
)
def test_every_other_run_is_refused(tmp_path, plan, what):
    with pytest.raises(ValueError, match=f"{what}.* Remove the folder here, and"):
        refuse_another(tmp_path / "here" / "run.json", made(), {**PLAN, **plan})
