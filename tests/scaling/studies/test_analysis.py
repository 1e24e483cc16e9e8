import json
import shutil

import pytest
from made_studies import TRUTH, add_run

from sr_transformers.scaling.laws.forms import LAWS, law_named
from sr_transformers.scaling.laws.records_table import read_records
from sr_transformers.scaling.studies.analysis import analyse, load_runs
from sr_transformers.scaling.studies.sentences import parameter, sentences


def test_the_joint_law_comes_out(found):
    joint = found.document["laws"]["joint"]
    assert joint["status"] == "converged"
    assert joint["params"]["alpha"] == pytest.approx(TRUTH["alpha"], rel=0.1)
    assert joint["params"]["beta"] == pytest.approx(TRUTH["beta"], rel=0.1)
    assert joint["num_points"] == 42  # neither the shape, nor the variant, nor the longer run


def test_sizes_are_compared_at_the_fraction_with_most_of_them(found):
    assert [found.epochs, found.fraction] == [3.0, 1.0]
    assert found.document["laws"]["n"]["num_points"] == 14


def test_the_largest_two_are_held_out_for_loss_and_metrics(found):
    rows = found.document["held_out"]["n"]["rows"]
    assert sorted({row["N"] for row in rows}) == [786_432, 1_572_864]
    assert max(abs(row["relative_error"]) for row in rows) < 0.03
    assert set(found.document["held_out"]) >= {"n", "ndcg@10", "hr@10"}


def test_all_of_the_data_is_predicted_from_little_of_it(found):
    held = found.document["held_out"]["joint"]
    assert {row["D"] for row in held["rows"]} == {400_000.0}
    assert len(held["rows"]) == 14
    assert held["reach"] == pytest.approx(1 / 0.3, rel=1e-3)
    assert max(abs(row["relative_error"]) for row in held["rows"]) < 0.05
    (sentence,) = [one for one in sentences(found.document) if "at most 30% of it" in one]
    assert sentence.startswith("Loss on all of the data, predicted from the runs on at most 30% of it: off by")


def test_larger_sizes_on_all_of_the_data_do_not_make_the_little_less(tmp_path):
    for size in ("3k", "12k", "49k", "98k"):
        for fraction in (0.05, 0.1, 0.3, 1.0):
            add_run(tmp_path, size, fraction)
    add_run(tmp_path, "1.5m", 1.0)
    (sentence,) = [one for one in sentences(analyse(tmp_path, draws=2).document) if "at most" in one]
    begin = (
        "Loss on all of the data, predicted from the runs on at most 30% of it, up to 16 times the largest N of these: "
    )
    assert sentence.startswith(begin)


@pytest.mark.parametrize("law", ["joint", "kaplan"])
def test_the_form_of_size_and_data_is_the_one_that_the_runs_have(tmp_path, law):
    for size in ("3k", "12k", "49k", "98k", "786k"):
        for fraction in (0.02, 0.05, 0.1, 0.3, 1.0):
            for seed in (1, 2):
                add_run(tmp_path, size, fraction, seed=seed, law=law)
    analysis = analyse(tmp_path, draws=5)
    assert analysis.document["together"] == law
    assert analysis.together is analysis.laws[law]
    assert analysis.document["bottleneck"] is not None
    (best, *_) = analysis.document["compute_optimal"]
    assert best["passes"] == 3.0  # as these runs made
    said = "\n".join(sentences(analysis.document))
    assert f"Size and data together: {LAWS[law].formula} with alpha" in said
    assert f"By AICc the form {law} is ahead" in said
    # Of the form that is not that of the runs the residuals are far above what seeds do, and it has no say.
    other = {"joint": "kaplan", "kaplan": "joint"}[law]
    assert analysis.document["laws"][law]["misfit"] is None
    misfit = analysis.document["laws"][other]["misfit"]
    assert misfit is not None
    assert misfit["residuals"] > 3 * misfit["seeds"] > 0
    # A law of data at each size.
    for size in ("3k", "786k"):
        one = analysis.document["laws"][f"d-{size}"]
        assert one["law"] == "d"
        assert one["num_points"] == 10
        assert f"at {size} E {parameter(one, 'E')} and beta" in said


def test_a_form_that_misses_the_runs_concludes_nothing(tmp_path):
    """Large models that few data make much worse than small ones, which no form has."""
    for size in ("3k", "12k", "49k", "98k", "786k"):
        for fraction in (0.02, 0.1, 0.3, 1.0):
            for seed in (1, 2):
                worse = 0.4 if fraction == 0.02 and size in ("98k", "786k") else 0.0
                add_run(tmp_path, size, fraction, seed=seed, extra=worse)
    analysis = analyse(tmp_path, draws=2)
    assert analysis.together is None
    assert analysis.document["compute_optimal"] == []
    assert analysis.document["bottleneck"] is None
    said = "\n".join(sentences(analysis.document))
    assert f"closest to these runs, {analysis.closest and LAWS[analysis.closest.fitted.law].formula}, misses" in said
    assert "it is no law of them, and nothing is concluded from it." in said
    assert "Size and data together" not in said


@pytest.mark.parametrize(("loss", "says"), [(TRUTH["E"], "holds it"), (TRUTH["E"] + 2, "does not hold it")])
def test_a_floor_that_is_known_is_compared_with_the_fitted_one(study_folder, tmp_path, loss, says):
    folder = tmp_path / "study"
    shutil.copytree(study_folder, folder)
    assert analyse(folder, draws=5).document["floor"] is None
    (folder / "floor.json").write_text(json.dumps({"last_loss": loss, "last_loss_error": 0.01}))
    document = analyse(folder, draws=20).document
    assert set(document["floor"]["held"]) == {"joint", "n"}
    (sentence,) = [one for one in sentences(document) if one.startswith("The floor of this log is known")]
    assert f"has a loss of {loss:.3f} +- 0.010 nats" in sentence
    assert f"of E of the law of size and data, {document['floor']['fitted']['joint'][0]:.3f} to" in sentence
    assert document["floor"]["held"]["joint"] == (says == "holds it")
    assert says in sentence


def test_a_variant_is_compared_with_the_plain_runs_of_its_seeds(found):
    (row,) = found.document["ablations"]
    assert [row["variant"], row["pairs"], row["seeds"]] == ["no-dropout", 2, [1, 2]]
    assert row["loss_minus_plain"] == pytest.approx(-0.1, abs=1e-9)


def test_shapes_stand_beside_their_twins(found):
    rows = found.document["shapes"]
    assert {(row["layers"], row["width"]) for row in rows} == {(8, 32), (2, 64)}


def test_loss_and_metric_agree_by_construction(found):
    assert found.document["agreement"]["ndcg@10"] == pytest.approx(-1)


def test_what_the_runs_do_not_say_is_noted(tmp_path):
    for size in ("3k", "12k"):
        add_run(tmp_path, size)
    found = analyse(tmp_path, draws=5)
    assert found.laws == {}
    assert any("2 points for 3 parameters" in note for note in found.notes)


def test_folders_that_are_no_study_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no study: it has no plan\.json"):
        load_runs(tmp_path)
    (tmp_path / "plan.json").write_text('{"runs": {}}')
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        load_runs(tmp_path)
    add_run(tmp_path, "3k", in_law=False)
    with pytest.raises(ValueError, match="none of the finished runs is a point of the law"):
        analyse(tmp_path)


def test_runs_of_two_logs_are_refused_whatever_they_were_planned_for(study_folder, tmp_path):
    """Also a run that is no point of the law: it would stand in the tables beside them."""
    folder = shutil.copytree(study_folder, tmp_path / "shop")
    path = next((folder / "runs").glob("98k-deep*")) / "run.json"
    record = json.loads(path.read_text())
    record["reports"][0]["protocol"]["data"] = "another.csv"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="have different protocols, and their numbers must not stand in one table"):
        analyse(folder, draws=2)


def test_the_record_of_another_run_is_refused(tmp_path):
    """As when a folder was copied by hand: the law would take one run for another."""
    for seed in (1, 2):
        add_run(tmp_path, "3k", seed=seed)
    first, second = sorted((tmp_path / "runs").iterdir())
    shutil.copy(second / "run.json", first / "run.json")
    for read in (load_runs, lambda folder: read_records([folder], law_named("n"))):
        with pytest.raises(ValueError, match=r"e3-main-s1.run\.json is not the record .*: its seed is 2, and the plan"):
            read(tmp_path)
