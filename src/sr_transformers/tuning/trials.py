"""The trials of a search: a worker takes one after the other from the journal until the time is up.

A trial is a training like any other, watched: it reports every validation to the sampler, ends when the pruner or the
clock says so, and never looks at the test targets.
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from transformers import TrainerCallback

from sr_transformers.data.prepared import PreparedData
from sr_transformers.messages import one_line
from sr_transformers.training.checkpoints import last_complete_checkpoint
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.train import fitted
from sr_transformers.tuning import storage
from sr_transformers.tuning.budget import SPARE, Plan, Probe
from sr_transformers.tuning.space import recipe_of, suggest

# A trial is not begun if less than this part of a usual one's time is left, nor one that would take more than this part
# of what is left: others would not get their turn.
_LEAST_LEFT, _MOST_TAKEN = 0.3, 0.6
_DRAWS = 200  # of settings that take too long, before a worker gives up
# Of a trial and not of its setting: they move no weight.
OF_SEARCH = {"disable_tqdm": True, "log_level": "error", "logging_strategy": "epoch"}
_FAILURES = 3  # trials that fail before any succeeds: then it is not the settings


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """The search was interrupted: the trial stays as it is, and goes on with the next start."""


@dataclass(frozen=True)
class Terms:
    """What all workers of a search are told, in plain values.

    Attributes:
        folder: of the search.
        data: prepared folder.
        kind: of the log, see `portfolio`.
        fixed: keys of the recipe that are not varied.
        seed: of the trainings and the sampler.
        plan, probe: see `budget`.
        begun: moment (`time.time`) at which the search would have begun, had it never been stopped.
        until: moment at which all must be over.
    """

    folder: Path
    data: Path
    kind: str
    fixed: dict[str, Any]
    seed: int
    plan: Plan
    probe: Probe
    begun: float
    until: float

    def left(self, study: optuna.Study) -> float:
        """Seconds until the search must be over, less what the end and a final training take."""
        return self.at_all() - self.final(study)

    def at_all(self) -> float:
        """Seconds that are left for training, the evaluation at the end taken off."""
        return self.until - time.time() - self.probe.end

    def final(self, study: optuna.Study) -> float:
        """Seconds that training the best setting in full takes; 0 if its trial was that."""
        winner = storage.best(study)
        if self.plan.final == 0.0 or winner is None:
            return self.plan.final
        return SPARE * float(winner.user_attrs["seconds"]) / self.plan.fraction


class Deadline(TrainerCallback):
    """Ends a training when its time is up, after a validation if there was none.

    Args:
        left: seconds, asked when training begins and after every validation.
        tick: called after every step.

    Attributes:
        ended: why it was ended early; None if it was not.
    """

    def __init__(self, left: Callable[[], float], tick: Callable[[], None]):
        self._left, self._tick = left, tick
        self.ended: str | None = None
        self._until, self._validated = math.inf, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._until = time.time() + self._left()
        for entry in state.log_history:  # of a training that goes on
            self.see(entry)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._tick()
        if time.time() >= self._until:
            self.ended = storage.TIME
            control.should_training_stop = True
            if not self._validated:  # else its time was for nothing
                control.should_evaluate = control.should_save = True

    def on_evaluate(  # type: ignore[override]
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any
    ) -> None:
        self._until = time.time() + self._left()
        self.see({**metrics, "epoch": state.epoch})

    def see(self, entry: dict[str, Any]) -> None:
        """Looks at an entry of the log; one of a validation has `eval_*`."""
        self._validated = self._validated or f"eval_{storage.METRIC}" in entry


class Watch(Deadline):
    """A deadline that reports every validation to Optuna, and ends the training when the pruner says so."""

    def __init__(self, trial: optuna.Trial, left: Callable[[], float], tick: Callable[[], None]):
        super().__init__(left, tick)
        self.trial = trial

    def on_evaluate(  # type: ignore[override]
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any
    ) -> None:
        super().on_evaluate(args, state, control, metrics)
        if self.ended is None and not control.should_training_stop and self.trial.should_prune():
            self.ended = storage.PRUNED
            control.should_training_stop = True

    def see(self, entry: dict[str, Any]) -> None:
        super().see(entry)
        if f"eval_{storage.METRIC}" in entry:
            self.trial.report(entry[f"eval_{storage.METRIC}"], max(round(entry["epoch"]), 1))


def work(terms: Terms, worker: int, tick: Callable[[], None], after: Callable[[], None] = lambda: None) -> None:
    """Takes trials until the time is up.

    Args:
        worker: number of this worker.
        tick: called before every trial and after every step; may raise `Stopped`.
        after: called after every trial.

    Raises:
        ValueError: if the first trials all fail: then it is not their settings.
    """
    study = storage.open_search(terms.folder, terms.seed, worker)
    log = PreparedData(terms.data)
    data, counts = terms.plan.data(log), log.manifest["counts"]
    refused = 0
    while refused < _DRAWS and _time_for_one(terms, study):
        tick()
        trial = study.ask()
        recipe = recipe_of(suggest(trial, counts, terms.fixed), terms.kind, terms.seed)
        for key, value in OF_SEARCH.items():
            recipe.set(key, value)
        if not _fits(recipe, log.vocab_size, trial, study, terms):
            refused += 1
            _over(trial, storage.TOO_LONG, terms, time.time(), recipe, 0.0)
            study.tell(trial, state=storage.State.PRUNED)
            continue
        refused = 0
        run_trial(study, trial, recipe, data, terms, tick)
        storage.clean(study, terms.folder, keep_best=terms.plan.fraction == 1.0)
        after()
        _check_failures(study)


def run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    recipe: Recipe,
    data: PreparedData,
    terms: Terms,
    tick: Callable[[], None],
) -> None:
    """Trains one setting, and tells the study how it ended."""
    begun = time.time()
    watch = Watch(trial, lambda: terms.left(study), tick)
    folder = terms.folder / storage.TRIALS / storage.folder_of(trial)
    try:
        with fitted(recipe, data, folder, callbacks=[watch]) as run:
            phases, state, trained = run.trainer.phases, run.trainer.state, run.seconds
    except (ValueError, ArithmeticError, MemoryError, torch.OutOfMemoryError) as error:
        trial.set_user_attr("error", one_line(str(error), 300))
        _over(trial, storage.FAILED, terms, begun, recipe, 0.0)
        study.tell(trial, state=storage.State.FAIL)
        return
    whole = state.epoch is not None and state.epoch >= float(recipe.training["num_train_epochs"])
    end = watch.ended or (storage.FULL if whole else storage.PLATEAU)
    losses = [[one["epoch"], one["loss"]] for one in state.log_history if "loss" in one]
    trial.set_user_attr("losses", losses)
    _over(trial, end, terms, begun, recipe, float(state.epoch or 0.0), trained)
    if phases.best is None:  # the time was over before its first validation
        study.tell(trial, state=storage.State.FAIL)
    elif end == storage.PRUNED:
        study.tell(trial, state=storage.State.PRUNED)
    else:
        study.tell(trial, float(phases.best))


def _over(
    trial: optuna.Trial, end: str, terms: Terms, begun: float, recipe: Recipe, epochs: float, trained: float = 0.0
) -> None:
    """Writes down how a trial ended; `trained`: seconds of its training, those before an interruption too."""
    settings = json.loads(json.dumps({"model": recipe.model, "training": recipe.training}))
    for name, value in (
        ("recipe", settings),
        ("epochs", epochs),
        ("seconds", max(time.time() - begun, trained)),
        ("begun", begun - terms.begun),
        ("ended", end),
    ):
        trial.set_user_attr(name, value)


def _trained(study: optuna.Study) -> list[storage.Frozen]:
    return [trial for trial in storage.ended(study) if trial.state == storage.State.COMPLETE]


def _time_for_one(terms: Terms, study: optuna.Study) -> bool:
    left, usual = terms.left(study), [trial.user_attrs["seconds"] for trial in _trained(study)]
    return left > _LEAST_LEFT * (statistics.median(usual) if usual else 0.0)


def _fits(recipe: Recipe, vocab_size: int, trial: optuna.Trial, study: optuna.Study, terms: Terms) -> bool:
    """Whether a setting is to be tried, by the time that it would take; the first one always is, and one that goes on
    from its last epochs, which the clock ends when it must."""
    slow = _slowness(study)
    expected = terms.probe.seconds(recipe, vocab_size, terms.plan.fraction)
    trial.set_user_attr("expected", expected)
    final = terms.probe.seconds(recipe, vocab_size) * slow if terms.plan.final else 0.0
    fits = expected * slow <= _MOST_TAKEN * terms.left(study) and expected * slow + final <= terms.at_all()
    begun = last_complete_checkpoint(terms.folder / storage.TRIALS / storage.folder_of(trial))
    return fits or begun is not None or not storage.ended(study)


def _slowness(study: optuna.Study) -> float:
    """How much longer trials take than the probe foretold; those count that ran to their last epoch."""
    ratios = [
        trial.user_attrs["seconds"] / trial.user_attrs["expected"]
        for trial in _trained(study)
        if trial.user_attrs["ended"] == storage.FULL
    ]
    return statistics.median(ratios) if ratios else 1.0


def _check_failures(study: optuna.Study) -> None:
    over = storage.ended(study)
    failed = [trial for trial in over if trial.user_attrs["ended"] == storage.FAILED]
    if len(failed) >= _FAILURES and len(failed) == len(over):
        raise ValueError(
            f"the first {len(failed)} trials all failed, the last one with: {failed[-1].user_attrs.get('error')}"
        )
