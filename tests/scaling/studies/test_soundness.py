import pytest
from made_studies import add_run, curve, record

from sr_transformers.scaling.studies.analysis import analyse
from sr_transformers.scaling.studies.sentences import sentences
from sr_transformers.scaling.studies.soundness import gain_of_longer, last_gain, reservations

TUNING = {"dropouts": {"3072": 0.1}, "at_edge": {}}


def plan_of(*names, **more):
    """Of runs of 20 epochs that are points of the law."""
    return {"runs": {name: planned() for name in names}, "tuning": TUNING, "converged_within": 0.01, **more}


def planned(**changes):
    same = {"layers": 1, "width": 16, "of": "users", "fraction": 1.0, "seed": 1, "settings": {}, "size": "3k"}
    rates = {"learning_rate": 0.01, "dropout": 0.1}
    return {**same, **rates, "epochs": 20.0, "own_epochs": True, "in_law": True, **changes}


PLAN = plan_of("a", "b")


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


@pytest.mark.parametrize(("gain", "epochs", "seed", "flagged"), [
    (0.02, 40.0, 1, True), (0.005, 40.0, 1, False), (-0.05, 40.0, 1, False), (0.02, 39.0, 1, False),
    (0.02, 40.0, 2, False)])  # fmt: skip
def test_twice_the_epochs_are_the_proof(gain, epochs, seed, flagged):
    """A curve that is flat at its end, and another run of the same."""
    records = {"a": record("3k", validation={"loss": 5.0}), "l": record("3k", validation={"loss": 5.0 - gain})}
    runs = {"a": planned(), "l": planned(epochs=epochs, seed=seed, in_law=False)}
    found = reservations(records, plan_of(runs=runs))
    assert [one["names"] for one in found] == ([["a"]] if flagged else [])
    expected = max(gain, 0.0) if epochs >= 40 and seed == 1 else None
    assert gain_of_longer("a", records, runs) == (None if expected is None else pytest.approx(expected))


def test_a_grid_of_few_epochs_is_not_asked_whether_it_converged():
    runs = {"a": planned(), "b": planned(size="12k", width=32), "one": planned(epochs=1.0, own_epochs=False)}
    runs["three"] = planned(epochs=3.0, own_epochs=False)
    records = {"a": record("3k"), "b": record("12k"), "one": record("3k", history=[])}
    records["three"] = record("3k", history=curve(9.0, 5.0))
    assert reservations(records, plan_of(runs=runs)) == []


def test_rates_at_an_edge_rates_of_no_tuning_and_missing_runs_are_named():
    sound = {"a": record("3k")}
    edge = plan_of("a") | {"tuning": {**TUNING, "at_edge": {"learning_rate": ["3k"], "dropout": []}}}
    (found,) = reservations(sound, edge)
    assert (found["names"], "best learning rate at an edge" in found["reason"]) == (["3k"], True)
    (found,) = reservations(sound, {"runs": {"a": planned()}})
    assert "at rates that no section `tuning`" in found["reason"]
    (found,) = reservations(sound, plan_of("a") | {"tuning": {"dropouts": {}, "at_edge": {}}})
    assert "at a dropout rate that no section `tuning`" in found["reason"]
    (found,) = reservations(sound, PLAN | {"runs": {**PLAN["runs"], "c": planned(in_law=False)}})
    assert (found["names"], found["reason"]) == (["b"], "were planned and not run")
    lost = plan_of("a", "b", "c", diverged=["c"])
    diverged, missing = reservations(sound, lost)
    assert (diverged["kind"], diverged["names"], missing["names"]) == ("diverged", ["c"], ["b"])
    (found,) = reservations({"a": record("3k", history=[])}, plan_of("a"))
    assert "too few evaluations" in found["reason"]


def test_a_sound_study_has_no_caveat_and_another_begins_with_it(found, tmp_path):
    assert found.document["reservations"] == []
    assert "not called laws" not in "".join(sentences(found.document))
    for size in ("3k", "12k", "49k", "98k", "197k"):
        add_run(tmp_path, size)
    path = tmp_path / "runs" / "12k-users1-e3-main-s1"
    record("12k", history=curve(5.9, 5.8)).save(path)
    first = sentences(analyse(tmp_path, draws=0).document)[0]
    assert first.startswith("These fits describe the runs made and are not called laws, because some were still")
    assert first.endswith("12k-users1-e3-main-s1.")
