"""Adam until validation stops improving, then SGD until it stops again: the paper's second training strategy.

Source: paper, section on optimizer switching; SGD's settings and the meaning of "stops" are published nowhere. Here a
phase ends after `patience` evaluations without improvement, and SGD starts from the weights that validated best.
"""

from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

ADAM, SGD = "adam", "sgd"


class TrainingPhases(TrainerCallback, ExportableState):
    """Watches the validation metric and says which phase training is in.

    Its state is stored in `trainer_state.json` of every checkpoint. `phase_in(state)` reads it from there, because the
    Trainer builds its optimizer before callbacks hear of a resumed run.

    Attributes:
        phase: ADAM or SGD.
        best: best validation value so far, None before the first.
        stale: evaluations since then.
        switched_at: global step of the switch, None before it.
        wants_switch: set at the end of the Adam phase; the trainer switches and calls `switched`.
    """

    def __init__(self, metric: str, greater_is_better: bool, patience: int, switch: bool):
        self.metric = metric if metric.startswith("eval_") else f"eval_{metric}"
        self.greater_is_better, self.patience, self.switch = greater_is_better, patience, switch
        self._start()

    def _start(self) -> None:
        self.phase = ADAM
        self.best: float | None = None
        self.stale = 0
        self.switched_at: int | None = None
        self.wants_switch = False

    def state(self) -> dict:
        arguments = {
            "metric": self.metric,
            "greater_is_better": self.greater_is_better,
            "patience": self.patience,
            "switch": self.switch,
        }
        attributes = {"phase": self.phase, "best": self.best, "stale": self.stale, "switched_at": self.switched_at}
        return {"args": arguments, "attributes": attributes}

    @classmethod
    def phase_in(cls, state: TrainerState) -> str:
        """The phase of a run whose TrainerState was just created or loaded."""
        return cls._stored(state)["phase"] if state.global_step else ADAM

    @classmethod
    def _stored(cls, state: TrainerState) -> dict[str, Any]:
        callbacks: Any = state.stateful_callbacks  # a list when constructed, by class name ever after
        return callbacks[cls.__name__]["attributes"]

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._start()
        if state.global_step:
            stored = self._stored(state)
            self.phase, self.best = stored["phase"], stored["best"]
            self.stale, self.switched_at = stored["stale"], stored["switched_at"]

    def on_evaluate(  # type: ignore[override]
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any
    ) -> None:
        if self.metric not in metrics:  # an evaluation that the user asked for, with another prefix
            return
        value = metrics[self.metric]
        better = self.best is None or (value > self.best if self.greater_is_better else value < self.best)
        if better:
            self.best, self.stale = value, 0
            return
        self.stale += 1
        if self.stale < self.patience:
            return
        if self.phase == ADAM and self.switch:
            self.wants_switch = True
        else:
            control.should_training_stop = True

    def switched(self, step: int) -> None:
        """Notes that the SGD phase begins."""
        self.phase, self.stale, self.switched_at, self.wants_switch = SGD, 0, step, False
