"""A Trainer whose steps touch the rows of the item table that they need, if `table_updates` says so."""

from typing import Any

import torch
from torch import nn

from sr_transformers.training.phases import SGD
from sr_transformers.training.row_updates import (
    DENSE,
    clip_with_rows,
    make_sparse,
    share_rows,
    tables_of,
    with_row_updates,
)
from sr_transformers.training.switching import SwitchingTrainer


class RowTrainer(SwitchingTrainer):
    """Gradients, their norm and the optimizer, by rows; with `table_updates` dense, or `prepared` None, as before."""

    @property
    def _by_rows(self) -> bool:
        return self.prepared is not None and self.args.table_updates != DENSE

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As `SwitchingTrainer`, with an optimizer of rows for the item table; the SGD phase has plain SGD for it.

        Raises:
            ValueError: for FSDP, DeepSpeed, or a model that reads all rows.
        """
        if self.prepared is None:
            return super().create_optimizer(model)
        make_sparse(self.model, self._by_rows)
        if not self._by_rows:
            return super().create_optimizer(model)
        updates = f"table_updates {self.args.table_updates}"
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(f"{updates} needs the table in one piece on every process, without FSDP and DeepSpeed.")
        made = self.optimizer is not None  # by an earlier call of train
        self.optimizer = super().create_optimizer(model)
        if not made and self.phases.phase != SGD:
            self.optimizer = with_row_updates(self.optimizer, self._tables(), self.args)
        return self.optimizer

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self._by_rows and self.args.world_size > 1:  # what DDP does with all weights that it is not told to ignore
            for table in self._tables():
                torch.distributed.broadcast(table.data, 0)
        return prepared

    def _tables(self) -> list[nn.Parameter]:
        return tables_of(self.model)

    def _clip_grad_norm(self, model: Any) -> Any:
        return self._norm_by_rows(model, self.args.max_grad_norm) if self._by_rows else super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if self._by_rows and grad_norm is None:
            grad_norm = self._norm_by_rows(model, float("inf"))
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def _norm_by_rows(self, model: Any, most: float) -> torch.Tensor:
        """Once per step, before the optimizer's: the processes' gradients become one, and are clipped."""
        if self.args.world_size > 1:
            share_rows(self._tables())
        self.accelerator.unscale_gradients()
        return clip_with_rows(list(model.parameters()), most)
