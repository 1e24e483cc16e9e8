import numpy as np
import pytest
from made_studies import INTERACTIONS, TRUTH

from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.studies.summary import summary


def test_every_law_has_an_entry_with_what_programs_ask_for(found):
    entries = {(one["law"], one["quantity"]): one for one in summary("shop", found)}
    assert {("n", "loss"), ("n-with-table", "loss"), ("joint", "loss"), ("saturating", "hr@10")} <= set(entries)
    size = entries["n", "loss"]
    document = found.document["laws"]["n"]
    assert size["study"] == "shop"
    assert size["params"]["alpha"] == {
        "value": document["params"]["alpha"],
        "low": document["intervals"]["alpha"][0],
        "high": document["intervals"]["alpha"][1],
    }
    assert (size["runs"], size["runs_still_improving"]) == (14, 0)
    assert {row["N"] for row in size["held_out"]} == {786_432.0, 1_572_864.0}
    assert set(size["held_out"][0]) == {"N", "measured", "predicted", "low", "high", "inside"}
    assert [(row["size"], row["N"]) for row in size["predicted"]] == [
        ("9m", 9_437_184),
        ("75m", 75_497_472),
        ("800m", 829_440_000),
    ]
    for row in size["predicted"]:
        true = LAWS["joint"].predict(TRUTH, {"N": np.array([row["N"]]), "D": np.array([INTERACTIONS])})[0]
        assert row["low"] <= row["value"] <= row["high"]
        assert row["value"] == pytest.approx(true, rel=0.02)
    assert entries["saturating", "hr@10"]["predicted"][0]["size"] == "9m"
    assert entries["n-with-table", "loss"]["predicted"] == entries["joint", "loss"]["predicted"] == []
    assert (size["command"], size["commit"]) == ("x", "unknown")
    assert entries["n-with-table", "loss"]["held_out"][0]["N"] > 786_432


def test_runs_that_still_improved_are_counted(found):
    improving = {
        "kind": "improving",
        "reason": "were still improving at their end",
        "names": [found.members["n"][0].name, "another"],
    }
    document = {**found.document, "reservations": [improving]}
    changed = type(found)(**{**vars(found), "document": document})
    assert [one["runs_still_improving"] for one in summary("shop", changed) if one["law"] == "n"] == [1]
