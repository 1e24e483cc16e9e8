import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from sr_transformers.data.prepare import prepare
from sr_transformers.fingerprints import differing
from sr_transformers.locking import only_one
from sr_transformers.records import RunRecord
from sr_transformers.scaling.studies import runner, workers
from sr_transformers.scaling.studies.advise import advise
from sr_transformers.scaling.studies.cost import Cost
from sr_transformers.scaling.studies.learning_rates import Tuned
from sr_transformers.scaling.studies.rate_search import least_runs
from sr_transformers.scaling.studies.runner import estimate_table, load_records, run_study
from sr_transformers.scaling.studies.study import Study
from sr_transformers.training import arguments

RESULTS = Path(__file__).parents[3] / "recipes" / "results" / "scaling"
TEXT = """
name: tiny
data: nowhere
recipe: base.yaml
validation_targets: 50
sizes: {s: [1, 8, 1], m: [1, 16, 1]}
tuning: {sizes: [s], learning_rates: [1e-3, 1e-2], dropouts: [0.0, 0.1], fraction: {users: 0.3}, epochs: 1}
blocks:
  main: {sizes: [s, m], fractions: [{users: 0.5}], epochs: [1], seeds: [1]}
  ways: {sizes: [s], fractions: [{interactions: 0.5}, {context: 0.5}], epochs: [1], seeds: [1], law: false}
  dry: {sizes: [s], fractions: [{users: 0.5}], epochs: [1], seeds: [1], settings: {residual_dropout: [0.0, 0.0]}}
"""
RECIPE = "model: {max_position_embeddings: 8}\ntraining: {per_device_train_batch_size: 8, switch_optimizer: false}\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    (folder / "base.yaml").write_text(RECIPE)
    (folder / "study.yaml").write_text(TEXT)
    return Study.load(folder / "study.yaml")


@pytest.fixture(scope="module")
def done(study, markov_prepared, tmp_path_factory):
    """The study, run."""
    said: list[str] = []
    output = tmp_path_factory.mktemp("done") / "out"
    return run_study(study, output, markov_prepared, say=said.append), output, said


@pytest.mark.slow
def test_every_run_has_its_record_and_nothing_else(done):
    records, output, said = done
    names = {path.name for path in (output / "runs").iterdir()}
    assert names == {
        "s-users0.5-e1-s1", "m-users0.5-e1-s1", "s-interactions0.5-e1-s1", "s-context0.5-e1-s1", "s-users0.5-e1-dry-s1",
    }  # fmt: skip
    assert len(records) == 5
    for name in names:
        assert [path.name for path in (output / "runs" / name).iterdir()] == ["run.json"]
    assert any("loss" in line and "m-users0.5-e1-s1" in line for line in said)


@pytest.mark.slow
def test_records_say_what_part_of_the_data_was_used(done, markov_prepared):
    _, output, _ = done
    users = RunRecord.load(output / "runs" / "s-users0.5-e1-s1")
    assert users.data["fraction"]["of"] == "users"
    assert users.num_train_interactions == users.data["fraction"]["train_interactions"]
    assert 0.3 < users.num_train_interactions / markov_prepared.num_train_interactions < 0.7
    context = RunRecord.load(output / "runs" / "s-context0.5-e1-s1")
    assert context.recipe["model"]["max_position_embeddings"] == 4
    assert context.num_train_interactions == markov_prepared.num_train_interactions
    dry = RunRecord.load(output / "runs" / "s-users0.5-e1-dry-s1")
    assert dry.recipe["model"]["residual_dropout"] == [0.0, 0.0]


@pytest.mark.slow
def test_the_rates_are_the_tuned_ones(done):
    _, output, _ = done
    tuned = json.loads((output / "plan.json").read_text())["tuning"]
    (best,), (dropout,) = tuned["learning_rates"].values(), tuned["dropouts"].values()
    assert tuned["at_edge"]["learning_rate"] == ["s"]  # of two rates the better one is an end of the ladder
    used = RunRecord.load(output / "runs" / "m-users0.5-e1-s1").recipe
    assert used["training"]["learning_rate"] == pytest.approx(best, rel=1e-3)
    assert used["model"]["residual_dropout"] == used["model"]["embedding_dropout"] == dropout
    tried = [RunRecord.load(path) for path in (output / "tuning").iterdir()]
    assert len(tried) == 3
    chosen = min(tried, key=lambda record: record.validation["loss"]).recipe
    assert (chosen["training"]["learning_rate"], chosen["model"]["residual_dropout"]) == (best, dropout)
    dry = RunRecord.load(output / "runs" / "s-users0.5-e1-dry-s1").recipe
    assert dry["model"]["residual_dropout"] == [0.0, 0.0]  # what its block sets
    assert dry["model"]["embedding_dropout"] == dropout


@pytest.mark.slow
def test_runs_side_by_side_are_the_same_runs(done, study, markov_prepared, tmp_path):
    records, output, _ = done
    beside = run_study(study, tmp_path / "out", markov_prepared, jobs=2, say=lambda line: None)
    plans = [json.loads((folder / "plan.json").read_text())["tuning"] for folder in (output, tmp_path / "out")]
    assert plans[0] == plans[1]
    for one, other in zip(records, beside, strict=True):
        assert one.recipe == other.recipe
        assert other.reports[0]["metrics"]["loss"] == pytest.approx(one.reports[0]["metrics"]["loss"], abs=1e-4)


def test_a_number_of_jobs_is_checked(study, markov_prepared, tmp_path):
    with pytest.raises(ValueError, match="jobs is 0 in 1 process"):
        run_study(study, tmp_path / "out", markov_prepared, jobs=0)


@pytest.mark.slow
def test_going_on_trains_nothing_that_is_finished(done, study, markov_prepared, monkeypatch):
    _, output, _ = done

    def never(*args, **kwargs):
        raise AssertionError("a finished run was trained again")

    removed = output / "runs" / "s-users0.5-e1-s1" / "run.json"
    kept = removed.read_text()
    monkeypatch.setattr(workers, "train", never)
    monkeypatch.setattr(runner, "calibrate", never)
    assert len(run_study(study, output, markov_prepared, say=lambda line: None)) == 5
    removed.unlink()
    with pytest.raises(AssertionError, match="trained again"):
        run_study(study, output, markov_prepared, say=lambda line: None)
    removed.parent.mkdir(exist_ok=True)
    removed.write_text(kept)


@pytest.mark.slow
def test_finished_tuning_is_not_charged_again(done, study):
    assert [run.name for run in least_runs(study, done[1] / "nowhere")] == [
        "s-users0.3-e1-lr0.001-do0-s0",
        "s-users0.3-e1-lr0.01-do0-s0",
        "s-users0.3-e1-lr0.001-do0.1-s0",
    ]
    assert least_runs(study, done[1] / "tuning") == []


@pytest.mark.slow
def test_runs_trained_at_other_rates_than_those_of_today_are_refused(done, study, markov_prepared, tmp_path):
    """As when the ladder was made longer because the best rate was its end: the runs would be those of the end."""
    shutil.copytree(done[1], tmp_path / "out")
    path = tmp_path / "out" / "tuning" / "s-users0.3-e1-lr0.1-do0-s0"
    (tmp_path / "base.yaml").write_text(RECIPE)
    (tmp_path / "study.yaml").write_text(TEXT.replace("[1e-3, 1e-2]", "[1e-3, 1e-2, 1e-1]"))
    longer = Study.load(tmp_path / "study.yaml")
    (tmp_path / "out" / "study.yaml").write_text(runner.dump(longer.source))
    for tried in ("0", "0.1"):
        record = RunRecord.load(tmp_path / "out" / "tuning" / f"s-users0.3-e1-lr0.01-do{tried}-s0")
        record.recipe["training"]["learning_rate"], record.validation["loss"] = 0.1, 0.5
        folder = path.with_name(path.name.replace("do0", f"do{tried}"))
        folder.mkdir()
        record.save(folder)
    with pytest.raises(
        ValueError,
        match=r"5 finished runs are not as they are planned now: s-users.*s1, .* The first: .*s-users0\.5-e1-s1.run"
        r"\.json .* its learning rate is 0\.01, and the plan says 0\.1\. Remove the folder .* So with the others\.",
    ):
        run_study(longer, tmp_path / "out", markov_prepared, say=lambda line: None)


@pytest.mark.slow
def test_a_study_keeps_its_precision_on_another_machine(done, study, markov_prepared, tmp_path, monkeypatch):
    shutil.copytree(done[1], tmp_path / "out")
    before = json.loads((tmp_path / "out" / "plan.json").read_text())["precision"]
    shutil.rmtree(tmp_path / "out" / "runs" / "s-users0.5-e1-s1")
    monkeypatch.setattr(arguments, "bf16_is_fast", lambda: before == "fp32")
    run_study(study, tmp_path / "out", markov_prepared, say=lambda line: None)
    again = RunRecord.load(tmp_path / "out" / "runs" / "s-users0.5-e1-s1").recipe["training"]
    assert (again["precision"], again["bf16"]) == (before, before == "bf16")


def test_speeds_are_those_of_this_machine(study, markov_prepared, tmp_path, monkeypatch):
    measured = []
    speed = runner.Speed((0.0, 0.0, 0.0, 1e-4), {}, 32)
    monkeypatch.setattr(runner, "calibrate", lambda *args: measured.append(1) or speed)
    for cores in (2, 2, 64):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        run_study(study, tmp_path / "out", markov_prepared, dry_run=True, say=lambda line: None)
    assert len(measured) == 2


def test_a_shorter_context_has_the_dropout_of_all_interactions(study):
    tuned = Tuned({768.0: 0.01}, {768.0: 0.0}, most_dropout=0.5, part=0.1, dropouts_of_part={768.0: 0.4})
    dropout = {(run.of, run.fraction): runner._with_rates(run, tuned).dropout for run in study.runs}
    assert dropout["context", 0.5] == 0.0
    assert dropout["users", 0.5] == dropout["interactions", 0.5] > 0


@pytest.mark.slow
def test_a_run_that_would_not_fit_is_not_begun(done, study, markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "calibrate", lambda *args: runner.Speed((0.0, 0.0, 0.0, 1e-9), {}, 32))
    said: list[str] = []
    with pytest.raises(ValueError, match=r"the budget ended tuning before a run of s had; raise --budget"):
        run_study(study, tmp_path / "out", markov_prepared, budget_minutes=1e-4, say=said.append)
    shutil.copytree(done[1] / "tuning", tmp_path / "out" / "tuning")
    with pytest.raises(
        ValueError, match=r"the budget of 0\.0001 minutes was spent before a run of the blocks could begin"
    ):
        run_study(study, tmp_path / "out", markov_prepared, budget_minutes=1e-4, say=said.append)
    assert sum("not begun" in line for line in said) == 5
    assert len(json.loads((tmp_path / "out" / "plan.json").read_text())["left_out"]) == 5


def test_a_budget_that_does_not_pay_for_tuning_is_refused(study, markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "calibrate", lambda *args: runner.Speed((0.0, 0.0, 0.0, 1.0), {}, 32))
    with pytest.raises(ValueError, match=r"the budget is 1 minutes, and what is left of tuning takes at least about"):
        run_study(study, tmp_path / "out", markov_prepared, budget_minutes=1, say=lambda line: None)
    assert not (tmp_path / "out" / "tuning").exists()


def test_a_dry_run_estimates_and_trains_nothing(study, markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "calibrate", lambda *args: runner.Speed((0.0, 0.0, 0.0, 1e-4), {}, 32))
    said: list[str] = []
    assert run_study(study, tmp_path / "out", markov_prepared, dry_run=True, say=said.append) == []
    assert "| m-users0.5-e1-s1 | 3,072 |" in said[0]
    assert not (tmp_path / "out" / "runs").exists()


def test_another_study_in_the_folder_is_refused(study, markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "calibrate", lambda *args: runner.Speed((0.0, 0.0, 0.0, 1e-4), {}, 32))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.yaml").write_text("name: other\n")
    with pytest.raises(FileExistsError, match="holds another study"):
        run_study(study, tmp_path / "out", markov_prepared, dry_run=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(FileExistsError, match="holds no study"):
        run_study(study, tmp_path / "full", markov_prepared, dry_run=True)


def test_a_second_process_in_the_folder_is_refused_and_harms_nothing(study, markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "calibrate", lambda *args: runner.Speed((0.0, 0.0, 0.0, 1e-4), {}, 32))
    begun = tmp_path / "out" / "runs" / "s-users0.5-e1-s1" / "settings.json"
    begun.parent.mkdir(parents=True)
    begun.write_text("the first one's")
    with only_one(tmp_path / "out"), pytest.raises(BlockingIOError, match="out"):
        run_study(study, tmp_path / "out", markov_prepared)
    assert begun.read_text() == "the first one's"


def test_the_table_adds_up(study):
    costs = {run.name: Cost(10, 6e9, 4e9, 60.0, 2**20) for run in study.runs}
    assert estimate_table(study.runs, costs).splitlines()[-1] == "| all 5 | | | 5.00e+10 | 5.0 | |"


def test_no_record_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        load_records(tmp_path)


def test_a_study_stays_with_the_log_it_was_begun_on(study, prepared, markov_prepared, tmp_path):
    """Their records would stand in one table: also another log of the same items, or the same in another split."""
    output = tmp_path / "out"
    run_study(study, output, markov_prepared, dry_run=True, say=lambda _: None)
    run_study(study, output, markov_prepared, dry_run=True, say=lambda _: None)
    with pytest.raises(ValueError, match=r"out was begun on another log than .*items is '.*' and '.*'"):
        run_study(study, output, prepared, dry_run=True, say=lambda _: None)
    histories = ["abcdefgh", "hgfedcba"] * 15
    rows = [(user, item, step) for user, history in enumerate(histories) for step, item in enumerate(history)]
    columns = ["user_id", "item_id", "timestamp"]
    one, other = (
        prepare(pl.DataFrame(some, schema=columns, orient="row"), tmp_path / name)
        for name, some in (("one", rows), ("other", [*rows[:-1], (29, "b", 7)]))
    )
    assert one.items_fingerprint == other.items_fingerprint
    run_study(study, tmp_path / "of-one", one, dry_run=True, say=lambda _: None)
    with pytest.raises(ValueError, match=r"of-one was begun on another log than .*interactions is '.*' and '.*'"):
        run_study(study, tmp_path / "of-one", other, dry_run=True, say=lambda _: None)


def test_a_study_stays_with_the_recipe_it_was_begun_with(study, markov_prepared, tmp_path):
    """study.yaml names its file alone, and that may have been changed since."""
    output = tmp_path / "out"
    run_study(study, output, markov_prepared, dry_run=True, say=lambda _: None)
    changed = RECIPE.replace("train_batch_size: 8", "train_batch_size: 4")
    (tmp_path / "base.yaml").write_text(changed.replace("{max", "{initializer_range: 0.5, max"))
    (tmp_path / "study.yaml").write_text(TEXT)
    other = Study.load(tmp_path / "study.yaml")
    assert other.source == study.source
    plan = (output / "plan.json").read_text()
    with pytest.raises(
        ValueError,
        match=r"out was begun with another recipe \(per_device_train_batch_size is 8 and 4; "
        r"initializer_range is not recorded and 0.5\)",
    ):
        run_study(other, output, markov_prepared, dry_run=True, say=lambda _: None)
    assert (output / "plan.json").read_text() == plan


@pytest.mark.parametrize(("last", "before"), [("new", "a"), ("a", "new")])
def test_a_log_without_known_targets_is_refused_before_anything_is_written(study, tmp_path, last, before):
    rows = [(user, item, step) for user in range(9) for step, item in enumerate(["a", "b", "c", before, last])]
    data = prepare(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), tmp_path / "data")
    what = "test" if last == "new" else "validation"
    for begin in (
        lambda: run_study(study, tmp_path / "out", data, dry_run=True),
        lambda: advise(data, tmp_path / "out", 1.0),
    ):
        with pytest.raises(ValueError, match=f"data: all 9 {what} targets lie outside the item vocabulary"):
            begin()
    assert not (tmp_path / "out").exists()


def test_the_kept_study_goes_on_with_its_recipe():
    folder = RESULTS / "ml-1m"
    study, plan = Study.load("ml-1m"), json.loads((folder / "plan.json").read_text())
    assert runner.dump(study.source) == (folder / runner.STUDY_FILE).read_text()
    assert plan["recipe"] == json.loads(json.dumps({"model": study.recipe.model, "training": study.recipe.training}))
    tried = [RunRecord.load(path) for path in (folder / "tuning").iterdir()]
    assert all(not differing(plan["protocol"], record.reports[0]["protocol"]) for record in tried)


@pytest.mark.slow
def test_runs_that_diverge_end_no_study(markov_prepared, tmp_path, monkeypatch):
    """No rate of the ladder's upper end has a loss; the run of the block that has none is named, and trained once."""
    (tmp_path / "base.yaml").write_text(RECIPE.replace("switch", "warmup_steps: 0, max_grad_norm: 0.0, switch"))
    head, _ = TEXT.split("tuning:")
    (tmp_path / "study.yaml").write_text(
        f"{head}tuning: {{sizes: [s], learning_rates: [1e-3, 1e-2, 1e38], fraction: {{users: 0.3}}, epochs: 1}}\n"
        "blocks:\n  main: {sizes: [s], epochs: [1], seeds: [1]}\n"
        "  high: {sizes: [s], epochs: [1], seeds: [1], settings: {learning_rate: 1e38}}\n"
    )
    said: list[str] = []
    (record,) = run_study(Study.load(tmp_path / "study.yaml"), tmp_path / "out", markov_prepared, say=said.append)
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["tuning"]["learning_rates"] == {"768": 0.01}
    assert plan["tuning"]["at_edge"]["learning_rate"] == []  # beyond it no model learned
    assert plan["diverged"] == ["s-e1-high-s1"]
    assert record.recipe["training"]["learning_rate"] == 0.01
    assert any("s-e1-high-s1: its model diverged" in line for line in said)
    assert any("lr1e+38" in line and "its rates are too high" in line for line in said)

    assert [path.name for path in (tmp_path / "out" / "runs" / "s-e1-high-s1").iterdir()] == ["diverged.json"]
    monkeypatch.setattr(workers, "train", lambda *_, **__: pytest.fail("a diverged run is trained again"))
    said.clear()
    run_study(Study.load(tmp_path / "study.yaml"), tmp_path / "out", markov_prepared, say=said.append)
    assert any("s-e1-high-s1: its model diverged" in line for line in said)
    run_study(Study.load(tmp_path / "study.yaml"), tmp_path / "out", markov_prepared, dry_run=True, say=said.append)
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["diverged"] == ["s-e1-high-s1"]
