"""Where a search is kept: Optuna's journal on disk, which several processes write to, and the folders of its trials.

Trials carry these attributes: `name` (of a setting of the portfolio), `folder` (of the training, which a trial that
went on for an interrupted one has from that), `recipe` (values by key), `ended` (one of `ENDS`), `error`, `seconds`,
`epochs`, `begun` (seconds since the search began).
"""

import contextlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
except ImportError as error:
    raise ImportError("the search needs Optuna: pip install 'sr-transformers[tune]'.") from error

from sr_transformers.training.checkpoints import last_complete_checkpoint

JOURNAL = "trials.journal"
TRIALS = "trials"
METRIC = "ndcg@10"
# How the training of a trial ended.
FULL, PLATEAU, PRUNED, TIME, TOO_LONG, FAILED = "all epochs", "plateau", "pruned", "time", "too long", "failed"
ENDS = (FULL, PLATEAU, PRUNED, TIME, TOO_LONG, FAILED)
# Random draws around the portfolio before the sampler trusts what it has seen; epochs that a trial has before it can be
# pruned, and trials that it is compared with.
_STARTUP, _WARMUP, _OTHERS = 8, 3, 3

State = optuna.trial.TrialState
Frozen = optuna.trial.FrozenTrial


def open_search(folder: Path, seed: int, worker: int = 0) -> optuna.Study:
    """The study in a folder; made if there is none.

    Args:
        seed, worker: draw what the sampler draws; every worker, and every start, draws other numbers.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="The reported value is ignored")  # a trial that goes on says it again
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    study = optuna.create_study(
        storage=storage,
        study_name="tune",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(_OTHERS, _WARMUP, n_min_trials=_OTHERS),
    )
    draws = np.random.SeedSequence([seed, worker, len(study.get_trials(deepcopy=False))]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, constant_liar=True, seed=int(draws[0]))
    return study


def mend(folder: Path) -> None:
    """Makes a journal whole whose writer was killed: half a last line, or a lock that nobody holds.

    To be called before it is opened, by the only process that works in the folder.
    """
    for lock in folder.glob(f"{JOURNAL}.lock*"):
        lock.unlink()
    journal = folder / JOURNAL
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as file:
            file.truncate(whole)


def go_on(study: optuna.Study, folder: Path) -> list[str]:
    """Puts trials back into the queue that were running when the search was stopped; they go on from their checkpoints.

    Returns:
        Their folders' names.
    """
    found = []
    for trial in study.get_trials(deepcopy=False, states=(State.RUNNING,)):
        name = folder_of(trial)
        if last_complete_checkpoint(folder / TRIALS / name) is None:
            shutil.rmtree(folder / TRIALS / name, ignore_errors=True)
        kept = {key: value for key, value in trial.user_attrs.items() if key == "name"}
        study.enqueue_trial(dict(trial.params), user_attrs={**kept, "folder": name})
        study.tell(trial.number, state=State.FAIL)
        found.append(name)
    return found


def begin_with(study: optuna.Study, portfolio: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts the settings of a portfolio into the queue that were never there."""
    known = {trial.user_attrs.get("name") for trial in study.get_trials(deepcopy=False)}
    for name, parameters in portfolio.items():
        if name not in known:
            study.enqueue_trial(dict(parameters), user_attrs={"name": name})


def folder_of(trial: Any) -> str:
    """Name of the folder below `TRIALS` in which a trial trains."""
    return str(trial.user_attrs.get("folder") or f"{trial.number:04}")


def ended(study: optuna.Study) -> list[Frozen]:
    """Trials that are over, those left out that others went on for; by number."""
    return _ended(study.get_trials(deepcopy=False))


def _ended(trials: Sequence[Frozen]) -> list[Frozen]:
    last = {folder_of(trial): trial.number for trial in trials}  # of a folder, the one that went on with it
    over = (State.COMPLETE, State.PRUNED, State.FAIL)
    return [
        trial
        for trial in trials
        if trial.state in over and "ended" in trial.user_attrs and trial.number == last[folder_of(trial)]
    ]


def best(study: optuna.Study) -> Frozen | None:
    """The trial that validated best, of those that were not pruned; the first of equals."""
    return _best(study.get_trials(deepcopy=False))


def _best(trials: Sequence[Frozen]) -> Frozen | None:
    complete = [trial for trial in trials if trial.state == State.COMPLETE]
    return max(complete, key=lambda trial: (trial.value, -trial.number)) if complete else None


def clean(study: optuna.Study, folder: Path, keep_best: bool) -> None:
    """Removes the trainings of trials that are over, but for the best one's if it is to be kept."""
    trials = study.get_trials(deepcopy=False)  # one look: another worker may end a better one at any moment
    winner = _best(trials) if keep_best else None
    for trial in _ended(trials):
        if winner is None or trial.number != winner.number:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / TRIALS / folder_of(trial))


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each parameter mattered for being among the better trials (PED-ANOVA), the most important first.

    Empty with fewer than four complete trials, which can say nothing.
    """
    if len(study.get_trials(deepcopy=False, states=(State.COMPLETE,))) < 4:
        return {}
    return {name: float(value) for name, value in optuna.importance.get_param_importances(study).items()}
