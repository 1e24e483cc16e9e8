"""A Trainer that changes from Adam to SGD where validation stops improving; see `training.phases`."""

import math
from typing import Any

import torch
from transformers.optimization import get_scheduler
from transformers.trainer_utils import has_length

from sr_transformers.training.keeping import KeepingTrainer
from sr_transformers.training.optimizers import MUON, multiply_rate, with_muon
from sr_transformers.training.phases import SGD
from sr_transformers.training.sharding import reshard, zero_momentum


class SwitchingTrainer(KeepingTrainer):
    """Optimizer and schedule of the phase that training is in; with `prepared` None transformers' own."""

    _first_optimizer: tuple[Any, dict[str, Any]] | None = None  # `optimizer_cls_and_kwargs` of the first phase
    _made_for: str | None = None  # the phase whose optimizer was made here last
    _batches: int | None = None  # of an epoch, for this process

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        self._batches = len(train_dataloader) if has_length(train_dataloader) else None
        # transformers keeps the optimizer of an earlier call of train, which may have ended in the other phase, or have
        # been interrupted there.
        if self.prepared is not None:
            self.phases.restore(self.state)
            if self._made_for not in (None, self.phases.phase):
                self.optimizer = None
        return super()._prepare_for_training(max_steps, train_dataloader, *args, **kwargs)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Of the weights that decay: matrices and tables. A learned temperature would be pulled to its start."""
        names = super().get_decay_parameter_names(model)
        if self.prepared is None:
            return names
        vectors = {name for name, parameter in model.named_parameters() if parameter.ndim < 2}
        return [name for name in names if name not in vectors]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Adam, or SGD once the run has switched."""
        if self.prepared is not None and not self.phases.active:
            self.phases.restore(self.state)
        given = self.args.weight_decay
        try:
            self.args.weight_decay = self._weight_decay()  # transformers knows which weights it is for
            return super().create_optimizer(model) if self.prepared is None else self._of_phase(model)
        finally:
            self.args.weight_decay = given

    def _of_phase(self, model: Any) -> torch.optim.Optimizer:
        made_by_user = self.optimizer is not None
        sgd = {"lr": self.args.sgd_learning_rate, "momentum": self.args.sgd_momentum}
        self.optimizer_cls_and_kwargs = (torch.optim.SGD, sgd) if self.phases.phase == SGD else self._first_optimizer
        optimizer = super().create_optimizer(model)
        if made_by_user:
            return optimizer
        self._made_for = self.phases.phase
        whole = self.model if model is None else model
        if self.args.table_lr_multiplier != 1:
            tables = (whole.get_input_embeddings(), whole.get_output_embeddings())
            in_epochs = self.args.decay_epochs is not None
            multiply_rate(optimizer, [table.weight for table in tables], self.args.table_lr_multiplier, in_epochs)
        if self.args.optimizer == MUON and self.phases.phase != SGD:
            optimizer = with_muon(optimizer, whole, self.args.learning_rate, self.args.weight_decay)
        self.optimizer = optimizer
        return optimizer

    def _weight_decay(self) -> float:
        """That of the arguments, or of their `decay_epochs` for the first phase.

        A step takes learning rate x weight decay of a weight away, so that it is 1/e of itself after the inverse of
        that many steps. That time, in epochs, is what fits other sizes and logs too (Wang and Aitchison, "How to set
        AdamW's weight decay as you scale model and dataset size", arXiv 2405.13698).

        Raises:
            ValueError: if nobody knows the steps of an epoch: before `train`, or for data without a length.
        """
        epochs = getattr(self.args, "decay_epochs", None)
        if epochs is None or (self.prepared is not None and self.phases.phase == SGD):
            return self.args.weight_decay
        if self._batches is None:
            raise ValueError("decay_epochs needs the steps of an epoch, and nobody knows them here; give weight_decay.")
        steps = math.ceil(self._batches / self.args.gradient_accumulation_steps)
        return 1.0 / (self.args.learning_rate * epochs * steps)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of the arguments for Adam, a constant rate for SGD."""
        if self.prepared is not None and self.lr_scheduler is None and self.phases.phase == SGD:
            self.lr_scheduler = get_scheduler("constant", optimizer or self.optimizer)  # type: ignore[arg-type]
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # transformers asks whether to stop only after an update; a run that was over must not make another, whether
        # patience ended it or it was stopped after the checkpoint of its last step.
        over = self.control.should_training_stop or self.state.global_step >= self.state.max_steps
        if self.prepared is None or not over:
            super()._run_epoch(*args, **kwargs)

    def switch_to_sgd(self) -> None:
        if self.state.best_model_checkpoint is not None:
            self._load_best_model()
        self.phases.switched(self.state.global_step)
        self.accelerator._optimizers.remove(self.optimizer)
        self.optimizer = self.lr_scheduler = None
        reshard(self.model)
        optimizer = self.create_optimizer()
        if self.writes_parts:
            zero_momentum(optimizer)
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)
        self.create_scheduler(self.state.max_steps)
        self.callback_handler.optimizer, self.callback_handler.lr_scheduler = self.optimizer, self.lr_scheduler
        self.log({"switched_to_sgd_at": float(self.state.global_step)})
