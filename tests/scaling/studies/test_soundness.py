import pytest
from made_studies import add_run, curve, record

from sr_transformers.scaling.studies.analysis import analyse
from sr_transformers.scaling.studies.sentences import sentences
from sr_transformers.scaling.studies.soundness import last_gain, reservations

PLAN = {"runs": {}, "tuning": {"dropouts": {"3072": 0.1}, "at_edge": {}}, "converged_within": 0.01}


def test_the_gain_of_the_last_tenth_counts():
    assert last_gain(record("3k", history=curve(5.0, 5.0))) == 0.0
    # Steps 95 and 100 are the last tenth of 100; steps up to 90 are not.
    assert last_gain(record("3k", history=curve(5.2, 5.1, 5.07, 5.05))) == pytest.approx(0.05)
    assert last_gain(record("3k", history=curve(5.0, 5.3, 5.3))) == 0.0
    assert last_gain(record("3k", history=[{"step": 100, "eval_loss": 5.0}])) is None
    assert last_gain(record("3k", history=[{"step": 50, "eval_loss": 5.4}, {"step": 100, "eval_loss": 5.0}])) == (
        pytest.approx(0.4)
    )


def test_runs_that_were_still_improving_are_named():
    runs = {"a": record("3k", history=curve(5.1, 5.0)), "b": record("3k", history=curve(5.0, 5.0))}
    (found,) = reservations(runs, PLAN)
    assert found["names"] == ["a"]
    assert "still improving" in found["reason"]
    assert "0.01 nats" in found["reason"]
    assert reservations(runs, PLAN, tolerance=0.2) == []


def test_rates_at_an_edge_rates_of_no_tuning_and_missing_runs_are_named():
    sound = {"a": record("3k")}
    edge = PLAN | {"tuning": {**PLAN["tuning"], "at_edge": {"learning_rate": ["3k"], "dropout": []}}}
    (found,) = reservations(sound, edge)
    assert (found["names"], "best learning rate at an edge" in found["reason"]) == (["3k"], True)
    (found,) = reservations(sound, {"runs": {}})
    assert "at rates that no section `tuning`" in found["reason"]
    (found,) = reservations(sound, PLAN | {"tuning": {"dropouts": {}, "at_edge": {}}})
    assert "at a dropout rate that no section `tuning`" in found["reason"]
    (found,) = reservations(
        sound, PLAN | {"runs": {"a": {"in_law": True}, "b": {"in_law": True}, "c": {"in_law": False}}}
    )
    assert (found["names"], found["reason"]) == (["b"], "were planned and not run")
    lost = PLAN | {"runs": {"b": {"in_law": True}, "c": {"in_law": True}}, "diverged": ["c"]}
    diverged, missing = reservations(sound, lost)
    assert (diverged["kind"], diverged["names"], missing["names"]) == ("diverged", ["c"], ["b"])
    (found,) = reservations({"a": record("3k", history=[])}, PLAN)
    assert "too few evaluations" in found["reason"]


def test_a_sound_study_has_no_caveat_and_another_begins_with_it(found, tmp_path):
    assert found.document["reservations"] == []
    assert "not called laws" not in "".join(sentences(found.document))
    for size in ("3k", "12k", "49k", "98k", "197k"):
        add_run(tmp_path, size)
    path = tmp_path / "runs" / "12k-users1-e3-main-s1"
    record("12k", history=curve(5.9, 5.8)).save(path)
    first = sentences(analyse(tmp_path, draws=0).document)[0]
    assert first.startswith("These fits describe the runs made and are not called laws, because 1 were still")
    assert first.endswith("12k-users1-e3-main-s1.")
