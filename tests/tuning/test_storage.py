"""The journal of a search survives its writers: half a line, a lock, trials that were running."""

import json
import multiprocessing

import optuna
import pytest

from sr_transformers.tuning import storage
from sr_transformers.tuning.storage import State


def tried(study, value=None, state=State.COMPLETE, ended=storage.FULL, **attributes):
    """A trial that is over."""
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for name, one in {"ended": ended, **attributes}.items():
        trial.set_user_attr(name, one)
    study.tell(trial, value, state=state)
    return trial.number


def test_half_a_line_and_a_lock_are_taken_away_and_nothing_else(tmp_path):
    study = storage.open_search(tmp_path, 0)
    number = tried(study, 0.5)
    journal = tmp_path / storage.JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    (tmp_path / f"{storage.JOURNAL}.lock").symlink_to("nowhere")
    storage.mend(tmp_path)
    assert journal.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [storage.JOURNAL]
    again = storage.open_search(tmp_path, 0)
    assert storage.best(again).number == number
    tried(again, 0.7)  # and it can be written to
    assert json.loads(journal.read_bytes().splitlines()[-1])


def test_a_new_folder_has_nothing_to_mend(tmp_path):
    storage.mend(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_trials_that_were_running_go_back_into_the_queue_with_their_folders(tmp_path):
    study = storage.open_search(tmp_path, 0)
    study.enqueue_trial({"x": 0.25}, user_attrs={"name": "sparse"})
    running = study.ask()
    running.suggest_float("x", 0, 1)
    (tmp_path / storage.TRIALS / "0000" / "checkpoint-3").mkdir(parents=True)  # not whole: nothing to go on from
    study = storage.open_search(tmp_path, 0)
    assert storage.go_on(study, tmp_path) == ["0000"]
    assert not (tmp_path / storage.TRIALS / "0000").exists()
    again = study.ask()
    assert (again.number, again.suggest_float("x", 0, 1)) == (1, 0.25)
    assert (again.user_attrs["name"], storage.folder_of(again)) == ("sparse", "0000")
    assert storage.ended(study) == []  # the interrupted one is no result
    assert storage.go_on(storage.open_search(tmp_path, 0), tmp_path) == ["0000"]  # stopped once more
    assert storage.folder_of(study.ask()) == "0000"


def test_whole_checkpoints_of_a_trial_stay(tmp_path):
    study = storage.open_search(tmp_path, 0)
    study.ask()
    checkpoint = tmp_path / storage.TRIALS / "0000" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "COMPLETE").write_text("{}")
    storage.go_on(study, tmp_path)
    assert checkpoint.exists()


def test_a_portfolio_is_put_into_the_queue_once(tmp_path):
    portfolio = {"sparse": {"x": 0.5}, "dense": {"x": 0.75}}
    study = storage.open_search(tmp_path, 0)
    storage.begin_with(study, {"sparse": {"x": 0.5}})  # and killed before the second
    storage.begin_with(storage.open_search(tmp_path, 0), portfolio)
    storage.begin_with(study, portfolio)
    assert [(one.user_attrs["name"], one.state) for one in study.get_trials()] == [
        ("sparse", State.WAITING), ("dense", State.WAITING)]  # fmt: skip


def test_the_best_is_of_those_that_were_not_pruned(tmp_path):
    study = storage.open_search(tmp_path, 0)
    assert storage.best(study) is None
    first = tried(study, 0.5)
    tried(study, 0.5)
    tried(study, 0.4, ended=storage.TIME)
    pruned = study.ask()
    pruned.report(0.9, 1)
    study.tell(pruned, state=State.PRUNED)
    tried(study, state=State.FAIL, ended=storage.FAILED)
    assert storage.best(study).number == first


@pytest.mark.parametrize("keep_best", [True, False])
def test_trainings_of_trials_that_are_over_are_removed(tmp_path, keep_best):
    study = storage.open_search(tmp_path, 0)
    for value in (0.1, 0.9, 0.3):
        tried(study, value)
    study.ask()  # still running
    for name in ("0000", "0001", "0002", "0003"):
        (tmp_path / storage.TRIALS / name).mkdir(parents=True)
    storage.clean(study, tmp_path, keep_best)
    left = {path.name for path in (tmp_path / storage.TRIALS).iterdir()}
    assert left == ({"0001", "0003"} if keep_best else {"0003"})


def test_the_folder_of_the_winner_stays_whoever_had_it_before(tmp_path):
    """A trial that was over but not told goes on as another, in the same folder."""
    study = storage.open_search(tmp_path, 0)
    first = study.ask()
    first.set_user_attr("ended", storage.FULL)  # killed before the study was told
    (tmp_path / storage.TRIALS / "0000").mkdir(parents=True)
    storage.go_on(study, tmp_path)
    (tmp_path / storage.TRIALS / "0000").mkdir(parents=True, exist_ok=True)
    again = study.ask()
    assert storage.folder_of(again) == "0000"
    assert storage.ended(study) == []  # another went on for the first
    again.set_user_attr("ended", storage.FULL)
    study.tell(again, 0.9)
    storage.clean(study, tmp_path, keep_best=True)
    assert (tmp_path / storage.TRIALS / "0000").is_dir()
    assert [one.number for one in storage.ended(study)] == [again.number]


def test_a_better_trial_that_ends_meanwhile_keeps_its_folder(tmp_path, monkeypatch):
    study = storage.open_search(tmp_path, 0)
    tried(study, 0.1)
    running = study.ask()
    (tmp_path / storage.TRIALS / "0001").mkdir(parents=True)
    look = storage._best

    def ends(trials):
        found = look(trials)
        running.set_user_attr("ended", storage.FULL)  # another worker, between two looks
        study.tell(running, 0.9)
        return found

    monkeypatch.setattr(storage, "_best", ends)
    storage.clean(study, tmp_path, keep_best=True)
    assert (tmp_path / storage.TRIALS / "0001").is_dir()


def test_importances_need_a_few_trials(tmp_path):
    study = storage.open_search(tmp_path, 0)
    for value in (0.1, 0.9, 0.3):
        tried(study, value)
    assert storage.importances(study) == {}
    tried(study, 0.5)
    assert storage.importances(study) == {"x": 1.0}


def test_every_worker_and_every_start_draws_other_numbers(tmp_path):
    drawn = [storage.open_search(tmp_path, 0, worker).ask().suggest_float("x", 0, 1) for worker in (0, 0, 1)]
    assert len(set(drawn)) == 3


def _ten(folder):
    study = storage.open_search(folder, 0, 1)
    for _ in range(10):
        tried(study, 0.5)


def test_two_processes_share_a_journal(tmp_path):
    study = storage.open_search(tmp_path, 0)
    other = multiprocessing.get_context("fork").Process(target=_ten, args=(tmp_path,))
    other.start()
    for _ in range(10):
        tried(study, 0.4)
    other.join()
    assert other.exitcode == 0
    assert [one.number for one in study.get_trials()] == list(range(20))


def test_warnings_of_optuna_are_not_the_users(tmp_path, recwarn, capsys):
    study = storage.open_search(tmp_path, 0)
    trial = study.ask()
    trial.report(0.5, 1)
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
    assert not [one for one in recwarn if issubclass(one.category, optuna.exceptions.ExperimentalWarning)]
    assert capsys.readouterr().err == ""
