"""Adam until validation stops improving, then SGD until it stops again: the paper's second training strategy.

Source: paper, section on optimizer switching; SGD's settings and the meaning of "stops" are published nowhere. Here a
phase ends after `patience` evaluations without improvement, and SGD starts from the weights that validated best.
"""

import time
from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

ADAM, SGD = "adam", "sgd"


class TrainingPhases(TrainerCallback, ExportableState):
    """Watches the validation metric and says which phase training is in.

    Its state is stored in `trainer_state.json` of every checkpoint. `restore(state)` reads it from there; the trainer
    calls it when it builds its optimizer, which is before callbacks hear of a resumed run.

    Attributes:
        phase: ADAM or SGD.
        best: best validation value so far, None before the first.
        stale: evaluations since then.
        switched_at: global step of the switch, None before it.
        best_checkpoint: name of the checkpoint that holds the weights that validated best, as of the last one saved.
        earlier_seconds: wall time of training up to the checkpoint that the run went on from.
        unlogged: sum of the training losses of the steps after the last one that was logged, and that step, as of the
            last checkpoint; carried: the same of the checkpoint that the run goes on from, until the trainer takes it.
        active: whether training is going on; evaluations outside it are not looked at.
        wants_switch: set at the end of the Adam phase; the trainer switches and calls `switched`.
    """

    def __init__(self, metric: str, greater_is_better: bool, patience: int, switch: bool):
        self.metric = metric if metric.startswith("eval_") else f"eval_{metric}"
        self.greater_is_better, self.patience, self.switch = greater_is_better, patience, switch
        self._start()

    def _start(self) -> None:
        self.phase = ADAM
        self.best: float | None = None
        self.best_checkpoint: str | None = None
        self.stale = 0
        self.switched_at: int | None = None
        self.earlier_seconds = 0.0
        self.unlogged: tuple[float, int] | None = None
        self.carried: tuple[float, int] | None = None
        self._begun = time.perf_counter()
        self._ended: float | None = None
        self.wants_switch = False
        self.active = False

    @property
    def seconds(self) -> float:
        """Wall time of training until now or its end, of all parts of a run that was stopped and went on."""
        until = time.perf_counter() if self._ended is None else self._ended
        return self.earlier_seconds + until - self._begun

    def state(self) -> dict:
        arguments = {
            "metric": self.metric,
            "greater_is_better": self.greater_is_better,
            "patience": self.patience,
            "switch": self.switch,
        }
        stored = ("phase", "best", "stale", "switched_at", "best_checkpoint", "unlogged")
        attributes = {name: getattr(self, name) for name in stored} | {"earlier_seconds": self.seconds}
        return {"args": arguments, "attributes": attributes}

    def restore(self, state: TrainerState) -> None:
        """Takes over where a run's state stands: at its start, or where the checkpoint was saved."""
        self._start()
        if state.global_step:
            callbacks: Any = state.stateful_callbacks  # a list when constructed, by class name ever after
            for name, value in callbacks[type(self).__name__]["attributes"].items():
                setattr(self, name, value)
            self.carried = self.unlogged

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.restore(state)
        self.active = True
        # The checkpoint of a run that was over: without this it would go on until the next plateau.
        control.should_training_stop = self._is_over()

    def on_evaluate(  # type: ignore[override]
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any
    ) -> None:
        # Evaluations outside training, or with another prefix, are the user's own.
        if not self.active or self.metric not in metrics:
            return
        value = metrics[self.metric]
        better = self.best is None or (value > self.best if self.greater_is_better else value < self.best)
        if better:
            self.best, self.stale = value, 0
            return
        self.stale += 1
        if self._is_over():
            control.should_training_stop = True
        elif self.stale >= self.patience:
            self.wants_switch = True

    def _is_over(self) -> bool:
        return self.stale >= self.patience and (self.phase == SGD or not self.switch)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.active, self._ended = False, time.perf_counter()

    def switched(self, step: int) -> None:
        """Notes that the SGD phase begins."""
        self.phase, self.stale, self.switched_at, self.wants_switch = SGD, 0, step, False
