"""A Trainer whose checkpoints survive being killed at any moment, and from which a run goes on exactly."""

import shutil
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from sr_transformers.evaluation.weights import COMPLETE
from sr_transformers.training.arguments import without_traces
from sr_transformers.training.checkpoints import (
    best_beside,
    best_name,
    checkpoints,
    last_complete_checkpoint,
    mark_complete,
    verify_checkpoint,
)
from sr_transformers.training.dividing import DividedTrainer
from sr_transformers.training.phases import TrainingPhases


class KeepingTrainer(DividedTrainer):
    """transformers' Trainer for a prepared log, as far as checkpoints go; with `prepared` None it is transformers' own.

    Attributes:
        phases: where its training stands.
    """

    # On a prepared log TrainDataset and EvalDataset; else transformers' own.
    train_dataset: Any
    eval_dataset: Any
    phases: TrainingPhases
    _writes_checkpoint = False

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains.

        Args:
            resume_from_checkpoint: a folder; or True: the newest whole one of `args.output_dir`.
            args, kwargs: as transformers has them.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if files of the checkpoint are missing or were changed.
        """
        if self.prepared is None:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise FileNotFoundError(f"{self.args.output_dir} has no complete checkpoint to go on from.")
        if resume_from_checkpoint:
            self._best_checkpoint = self._verified(resume_from_checkpoint)
        return super().train(resume_from_checkpoint or None, *args, **kwargs)

    def take_best(self, checkpoint: str | None) -> None:
        """Takes the state of a checkpoint and the weights that had validated best by then; no step is trained.

        Raises:
            FileNotFoundError: if there is no such checkpoint, or it has no weights that validated best.
            ValueError: if files of the checkpoint are missing or were changed.
        """
        if checkpoint is None:
            raise FileNotFoundError(f"{self.args.output_dir} has no complete checkpoint to take as it stands.")
        best = self._verified(checkpoint)
        if best is None:
            raise FileNotFoundError(f"{checkpoint} has no weights that validated best: its run never validated.")
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        self.state.best_model_checkpoint = best
        self.phases.restore(self.state)
        self._load_best_model()

    def _verified(self, checkpoint: str) -> str | None:
        """The checkpoint that had validated best when this one was written, both found to be whole by the first
        process: all processes see the same folder, and to read it once is enough.

        Raises:
            FileNotFoundError, ValueError: on all processes, as `verify_checkpoint`, `best_beside` and `check_kind`.
        """
        outcome: list[Any] = [None]
        if self.is_world_process_zero():
            try:
                verify_checkpoint(checkpoint)
                self.check_kind(checkpoint)
                outcome = [best_beside(checkpoint)]
            except (OSError, ValueError) as error:
                outcome = [error]
        broadcast_object_list(outcome)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def _init_training_state(
        self, max_steps: int, updates: int, epochs: int, checkpoint: str | None, trial: Any
    ) -> Any:
        result = super()._init_training_state(max_steps, updates, epochs, checkpoint, trial)
        if self.prepared is not None and checkpoint is not None:
            self.state.best_model_checkpoint = self._best_checkpoint
        return result

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.prepared is not None and self.phases.carried is not None:
            # transformers begins a sum of its own when a run goes on; the next entry is a mean over all of its steps.
            loss, self._globalstep_last_logged = self.phases.carried
            self._tr_loss += loss
            self.phases.carried = None
        super()._run_epoch(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # super() pickles the arguments, and what is pickled has no token and names no place.
        arguments = self.args
        self.args = without_traces(arguments)
        try:
            super()._save(output_dir or arguments.output_dir, state_dict)
        finally:
            self.args = arguments

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `ShardedTrainer.save_model`; but the weights in a checkpoint are parts, each written by its process."""
        if not (self._writes_checkpoint and self.writes_parts):
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.prepared is None:
            return super()._save_checkpoint(model, trial)
        output = Path(self._get_output_dir(trial))
        checkpoint = output / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            # What a run that died has left of it could have been of more processes. And it must be there before any
            # process asks whether it is the best: one that finds no folder would go on without it.
            shutil.rmtree(checkpoint, ignore_errors=True)
            checkpoint.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        # Old checkpoints go only when the new one is whole, so super() must not remove any.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self._writes_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit, self._writes_checkpoint = limit, False
        loss = float(self.accelerator.reduce(self._tr_loss.detach().clone(), "mean"))
        self.phases.unlogged = loss, self._globalstep_last_logged
        self.accelerator.wait_for_everyone()  # every process has written its part
        if self.args.should_save:
            self._save_state(checkpoint)
            mark_complete(checkpoint)
            self._rotate(output, limit)

    def _save_state(self, checkpoint: Path) -> None:
        """Writes trainer_state.json again: the checkpoint that validated best by its name, for a run may move."""
        best = self.state.best_model_checkpoint
        self.phases.best_checkpoint = None if best is None else Path(best).name
        callbacks: Any = self.state.stateful_callbacks  # by class name, once there is a checkpoint
        callbacks[type(self.phases).__name__] = self.phases.state()
        self.state.best_model_checkpoint = None
        self.state.save_to_json(str(checkpoint / TRAINER_STATE_NAME))
        self.state.best_model_checkpoint = best

    def _rotate(self, output: Path, limit: int | None) -> None:
        """Removes all checkpoints but the newest `limit` and those that had validated best when these were written."""
        if limit is None:
            return
        found = checkpoints(output)
        needed = {best_name(folder) for folder in found[:limit] if (folder / COMPLETE).exists()}
        for folder in found[limit:]:
            if folder.name not in needed:
                (folder / COMPLETE).unlink(missing_ok=True)  # first: half a checkpoint must not look whole
                shutil.rmtree(folder)
