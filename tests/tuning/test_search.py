"""A whole search: what it leaves, that it goes on where it was stopped, and what it refuses."""

import itertools
import json
import re
import shutil

import pytest
import yaml
from broken_pool import Broken
from made_searches import SMALL

from sr_transformers import PreparedData, Recipe, RunRecord, evaluate
from sr_transformers.data.logs import synthetic
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.records import read_json
from sr_transformers.tuning import search, storage, trials
from sr_transformers.tuning.budget import Plan, Probe
from sr_transformers.tuning.search import check_fixed, tune

pytest.importorskip("matplotlib", reason="the search draws figures")


def three(monkeypatch, number=3):
    """Has a search begin so many trials (with each start), whatever the time."""
    begun = []

    def enough(terms, study):
        begun.append(1)
        return len(begun) <= number

    monkeypatch.setattr(trials, "_time_for_one", enough)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "events.csv"
    synthetic.generate(num_users=300, num_items=30, num_successors=3, mean_length=12).write_csv(path)
    return path


@pytest.fixture(scope="module")
def searched(log, tmp_path_factory):
    """A search from a log, of three trials."""
    folder, said = tmp_path_factory.mktemp("searches") / "one", []
    with pytest.MonkeyPatch.context() as patch:
        three(patch)
        record = tune(log, folder, 600, seed=5, fixed=SMALL, say=said.append)
    return folder, record, said


def test_the_best_of_the_trials_is_the_model(searched):
    folder, record, _ = searched
    found = read_json(folder / "tune.json")
    assert len(found["trials"]) == 3
    best = max(found["trials"], key=lambda one: one["value"])
    assert (found["best"], record.validation["ndcg@10"]) == (best["number"], best["value"])
    assert RunRecord.load(folder / "model") == record
    assert record.reports == found["reports"]
    assert record.seconds == pytest.approx(60 * best["minutes"], rel=1e-3)
    assert (record.seed, record.epochs) == (5, 2.0)
    data = PreparedData(folder / "prepared")
    scorer = ModelScorer(Checkpoint(folder / "model").model())
    metrics = evaluate(scorer, data, filter_seen=record.reports[0]["protocol"]["filter_seen"])["metrics"]
    assert metrics["ndcg@10"] == pytest.approx(record.reports[0]["metrics"]["ndcg@10"], abs=1e-6)
    assert next(one["model"] for one in record.reports) == "lsrm tuned"
    assert record.reports[-1]["model"] == "mix"


def test_the_recipe_is_a_file_for_train(searched):
    folder, record, _ = searched
    recipe = Recipe.load(folder / "recipe.yaml")
    head = [line for line in (folder / "recipe.yaml").read_text().splitlines() if line.startswith("#")]
    assert re.match(r"# Trial \d of a search of .*: the best of 3 by NDCG@10 of validation \(0\.\d{4}\)\.", head[0])
    assert recipe.training["learning_rate"] == record.recipe["training"]["learning_rate"]
    assert "disable_tqdm" not in recipe.training
    for key, value in recipe.model.items():
        assert record.recipe["model"].get(key, value) == value
    assert SMALL.items() <= {**recipe.model, **recipe.training}.items()


def test_the_report_is_a_page_with_the_numbers_and_the_pictures(searched):
    folder, record, _ = searched
    text, found = (folder / "report.md").read_text(), read_json(folder / "tune.json")
    for name in re.findall(r"\]\((figures/[a-z]+\.png)\)", text):
        assert (folder / name).is_file()
    assert {"figures/score.png", "figures/learning.png", "figures/time.png"} <= set(re.findall(r"\((.*?\.png)\)", text))
    metrics = record.reports[0]["metrics"]
    assert f"HR@10 {metrics['hr@10']:.4f} and NDCG@10 {metrics['ndcg@10']:.4f}" in text
    assert f"The best is trial {found['best']}**" in text
    assert "| mix |" in text
    assert len(re.findall(r"^\| \d+ \| 0\.\d{4} \|", text, re.MULTILINE)) == 3
    assert "3 settings were tried, 0 of them ended early" in text
    assert str(folder) not in text


def test_every_trial_is_a_line_and_the_kind_is_said(searched):
    _, _, said = searched
    assert said[0].startswith("The search begins with regimes/repeats, because users come back to items: ")
    assert "One training of it takes about " in said[1]
    assert said[2].split() == ["trial", "NDCG@10", "best", "epochs", "minutes", "left", "ended", "setting"]
    rows = [line.split() for line in said[3:6]]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    values = [float(row[1]) for row in rows]
    assert [float(row[2]) for row in rows] == [max(values[: n + 1]) for n in range(3)]
    assert "is the best: evaluated on the test targets" in said[6]


def test_nothing_is_left_but_what_is_named(searched):
    folder, _, _ = searched
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["settings.json", "prepared", "trials.journal", "progress.json", "model", "recipe.yaml", "report.md",
         "figures", "tune.json"])  # fmt: skip


def test_a_finished_search_goes_on_only_with_a_larger_budget(searched, log, tmp_path, monkeypatch):
    folder = shutil.copytree(searched[0], tmp_path / "again")
    with pytest.raises(FileExistsError, match=r"holds a finished search of 10m: see .*report\.md.*larger budget"):
        tune(log, folder, 600, seed=5, fixed=SMALL)
    before = read_json(folder / "tune.json")
    three(monkeypatch, 1)
    said = []
    record = tune(log, folder, 1200, seed=5, fixed=SMALL, say=said.append)
    after = read_json(folder / "tune.json")
    assert len(after["trials"]) == 4
    assert after["trials"][:3] == before["trials"]
    assert [line.split()[0] for line in said[3:7]] == ["0", "1", "2", "3"]  # the old ones are told again
    assert record.validation["ndcg@10"] == max(one["value"] for one in after["trials"])
    assert after["spent"] > before["spent"]


@pytest.mark.parametrize(("changed", "says"), [({"seed": 6}, "other settings"), ({"fixed": {}}, "other settings"),
                         ({"split": "temporal"}, "another log, or with another split")])  # fmt: skip
def test_another_search_is_refused(searched, log, changed, says):
    before = {path: path.stat().st_mtime_ns for path in searched[0].rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=says):
        tune(log, searched[0], 1200, **{"seed": 5, "fixed": SMALL, **changed})
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_log_is_refused(searched, log, tmp_path):
    other = tmp_path / log.name
    other.write_text(log.read_text().rsplit("\n", 2)[0] + "\n")
    with pytest.raises(FileExistsError, match="was prepared from another log"):
        tune(other, searched[0], 1200, seed=5, fixed=SMALL)


class Killed(BaseException):
    """As a process ends that is killed: nothing catches it."""


def test_a_search_that_was_killed_goes_on_with_the_trial_that_was_running(markov_prepared, tmp_path, monkeypatch):
    three(monkeypatch)
    steps = []

    def tick(self):
        self.keep()
        steps.append(1)
        if len(steps) == 18:  # 1 + 10, 1 + 6: five steps an epoch, so in the second epoch of the second trial
            raise Killed

    monkeypatch.setattr(search.Progress, "tick", tick)
    fixed = {**SMALL, "num_train_epochs": 2}
    with pytest.raises(Killed):
        tune(markov_prepared, tmp_path / "tuned", 600, fixed=fixed, say=lambda line: None)
    spent = read_json(tmp_path / "tuned" / "progress.json")["spent"]
    assert not (tmp_path / "tuned" / "tune.json").exists()
    three(monkeypatch, 5)
    said = []
    tune(markov_prepared, tmp_path / "tuned", 600, fixed=fixed, say=said.append)
    assert "1 trial(s) were running when the search was stopped, and go on." in said
    found = read_json(tmp_path / "tuned" / "tune.json")
    # What went on is a new trial behind the rest of the portfolio; 1 is no result.
    assert [one["number"] for one in found["trials"]] == [0, 2, 3, 4, 5, 6]
    assert found["spent"] > spent
    assert len(steps) == 18 + 4 * (1 + 10) + (1 + 5)  # one before each trial; the second epoch alone of what went on
    assert [one["name"] for one in found["trials"]][-1] == "dense"
    assert len({one["name"] for one in found["trials"]}) == 6


def test_on_a_part_of_the_users_the_best_is_trained_on_all(markov_prepared, tmp_path, monkeypatch):
    three(monkeypatch, 2)
    monkeypatch.setattr(search, "plan", lambda *arguments: Plan(0.5, 150, 5.0))
    said = []
    record = tune(markov_prepared, tmp_path / "tuned", 600, fixed=SMALL, say=said.append)
    found = read_json(tmp_path / "tuned" / "tune.json")
    assert record.num_train_interactions == markov_prepared.num_train_interactions
    assert record.data["fraction"]["validation_targets"] == 150
    assert record.recipe["chosen"] == f"trial {found['best']} of a search was the best"
    assert record.reports[0]["num_targets"] == 300
    assert "Trials train on 50% of the users" in said[1]
    assert "50% of the users, the best one on all of them" in (tmp_path / "tuned" / "report.md").read_text()


def test_a_budget_that_is_used_up_still_ends_in_a_model(markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_final", lambda *a: (_ for _ in ()).throw(Killed()))
    three(monkeypatch, 1)
    with pytest.raises(Killed):
        tune(markov_prepared, tmp_path / "tuned", 600, fixed=SMALL, say=lambda line: None)
    monkeypatch.undo()
    said = []
    record = tune(markov_prepared, tmp_path / "tuned", 0.01, fixed=SMALL, say=said.append)
    assert said[0] == "the budget of 0s is used up; what was found is trained and evaluated now."
    assert len(read_json(tmp_path / "tuned" / "tune.json")["trials"]) == 1
    assert record.reports[-1]["model"] == "mix"


def test_too_short_a_budget_leaves_the_prepared_log_alone(log, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "probe", lambda *arguments: Probe(1.0, 100, 1.0, 1.0, 9.0, 1e6, 10.0))
    for _ in range(2):  # the second finds the log prepared
        with pytest.raises(ValueError, match=r"smallest sensible budget is about 2\dm"):
            tune(log, tmp_path / "tuned", 60, fixed=SMALL, say=lambda line: None)
        assert [path.name for path in (tmp_path / "tuned").iterdir()] == ["prepared"]


def test_a_folder_of_something_else_is_refused(markov_prepared, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="is not empty and holds no search"):
        tune(markov_prepared, tmp_path, 600)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_small_log_and_a_wrong_split_are_refused(prepared, markov_prepared, tmp_path):
    with pytest.raises(ValueError, match="12 validation targets"):
        tune(prepared, tmp_path / "tuned", 600)
    with pytest.raises(ValueError, match="was prepared with the split leave_one_out, not temporal"):
        tune(markov_prepared, tmp_path / "tuned", 600, split="temporal")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("jobs", "budget"), [(0, 60), (1, 0), (1, float("nan"))])
def test_jobs_and_budget_are_above_zero(markov_prepared, tmp_path, jobs, budget):
    with pytest.raises(ValueError, match="both must be above 0"):
        tune(markov_prepared, tmp_path / "tuned", budget, jobs)


def test_a_launcher_of_several_processes_is_refused(markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start it without a launcher"):
        tune(markov_prepared, tmp_path / "tuned", 60)


@pytest.mark.parametrize(
    ("fixed", "says"),
    [
        ({"metric_for_best_model": "loss"}, "--fix metric_for_best_model: it cannot be fixed.*compared by ndcg@10"),
        ({"seed": 3}, "it is the option --seed"),
        ({"hidden_sise": 3}, "--fix: unknown key 'hidden_sise'; did you mean 'hidden_size'"),
        ({"eval_steps": 3}, "--fix eval_steps: it cannot be fixed, for the search prunes"),
        ({"save_steps": 3}, "--fix save_steps: it cannot be fixed, for a search that was stopped goes on"),
        ({"num_successors": 64, "history": ["items"]}, "^--fix num_successors: nothing reads it.*mix among"),
        ({"sgd_momentum": 0.5}, "^--fix sgd_momentum: nothing reads it.*it needs switch_optimizer true"),
        ({"hidden_size": "wide"}, "model.hidden_size is 'wide'"),
        ({"weight_decay": 0.01}, "--fix weight_decay=0.01 does not go together.*add --fix decay_epochs=null"),
        ({"num_negatives": 1024}, r"add --fix history=\[\]"),
        ({"row_width": 50}, "add --fix max_position_embeddings=WINDOW"),
        ({"hidden_size": 30}, "add --fix num_attention_heads=HEADS"),
    ],
)
def test_what_cannot_be_fixed(fixed, says):
    with pytest.raises(ValueError, match=says):
        check_fixed(fixed)


def test_what_a_trial_may_read_is_fixed():
    fixed = {"num_successors": 64, "negative_power": 0.5, "warmup_steps": 10}
    assert check_fixed(fixed) == fixed
    fixed = {"weight_decay": 0.01, "decay_epochs": None, "hidden_size": 30, "num_attention_heads": 3}
    assert check_fixed(fixed) == fixed


def test_no_trial_that_was_validated_is_no_model(markov_prepared, tmp_path, monkeypatch):
    three(monkeypatch, 0)
    with pytest.raises(ValueError, match="no trial came to its first validation within the budget"):
        tune(markov_prepared, tmp_path / "tuned", 600, fixed=SMALL, say=lambda line: None)
    three(monkeypatch, 1)  # and nothing is lost
    assert tune(markov_prepared, tmp_path / "tuned", 600, fixed=SMALL, say=lambda line: None).reports


def test_a_worker_that_was_killed_is_no_riddle(markov_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "pool_of", Broken)
    with pytest.raises(OSError, match=r"a worker of the search was ended from outside.*the same command goes on"):
        tune(markov_prepared, tmp_path / "tuned", 600, jobs=2, fixed=SMALL, say=lambda line: None)


@pytest.mark.slow
def test_two_workers_share_a_search(markov_prepared, tmp_path):
    said = []

    def until_five(line):
        said.append(line)
        if len(told(said)) == 5:
            raise Killed

    with pytest.raises(Killed):
        tune(markov_prepared, tmp_path / "tuned", 600, jobs=2, fixed=SMALL, say=until_five)
    assert len({line.split()[0] for line in told(said)}) == 5
    record = tune(markov_prepared, tmp_path / "tuned", 1, jobs=2, fixed=SMALL, say=said.append)
    found = read_json(tmp_path / "tuned" / "tune.json")
    ran = [one for one in found["trials"] if one["ended"] != storage.TOO_LONG]
    assert len(ran) >= 5
    assert record.validation["ndcg@10"] == max(one["value"] for one in ran if one["ended"] != storage.PRUNED)
    spans = sorted((one["begun_minutes"], one["begun_minutes"] + one["minutes"]) for one in ran)
    assert any(second[0] < first[1] for first, second in itertools.pairwise(spans))  # side by side
    assert not (tmp_path / "tuned" / "trials").exists()


def told(lines):
    """Those of trials."""
    return [line for line in lines if re.match(r" +\d+  ", line)]


def test_the_recipe_file_holds_plain_yaml(searched):
    content = yaml.safe_load((searched[0] / "recipe.yaml").read_text())
    assert list(content) == ["model", "training"]
    assert json.loads(json.dumps(content)) == content
