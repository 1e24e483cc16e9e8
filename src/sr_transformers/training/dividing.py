"""A Trainer whose item table is divided by rows over `tp_size` processes (vocabulary parallelism).

    process  0 1   2 3      torchrun --nproc_per_node 4 ... --tp_size 2
    copy     0 0   1 1      reads this part of every batch, and ranks this part of the users
    rows     0 1   0 1      of the item table, their gradients and their optimizer state

transformers' Trainer leaves a model that was divided when it was loaded to itself, and this is such a model to it. What
is added here: gradients are averaged over the copies once per step, the norm that clips is taken over divided and whole
weights together, and checkpoints are written and read by all processes, each its rows
(`torch.distributed.checkpoint`).

What it refuses: whatever would need the table in one piece, or divides it in another way (`tp_problems`).
"""

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as parts
from torch.distributed.device_mesh import DeviceMesh
from transformers import PreTrainedModel
from transformers.distributed import load_optimizer_distributed, save_optimizer_distributed
from transformers.trainer import SCHEDULER_NAME

from sr_transformers.lsrm.divided_lsrm import MESH, head_division
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.training.sharding import ShardedTrainer
from sr_transformers.training.vocabulary_parallel import average_gradients, begin_alike, clip_gradients, divide, mesh_of

_WEIGHTS, _OPTIMIZER = "divided_model", "divided_optimizer"  # folders of a checkpoint


class DividedTrainer(ShardedTrainer):
    """transformers' Trainer on a prepared log, as far as a divided item table goes; with `tp_size` 1, or `prepared`
    None, as before.

    Raises:
        ValueError: for a `model_init`, and as `mesh_of`.
    """

    lr_scheduler: Any

    def __init__(self, *, model_init: Callable[..., PreTrainedModel] | None = None, **kwargs: Any):
        if self.prepared is not None and self.args.tp_size > 1 and model_init is not None:
            raise ValueError("tp_size above 1 trains a model that is there: give model, not model_init.")
        super().__init__(model_init=model_init, **kwargs)
        if self.is_divided:  # transformers' word for a model that places its weights by itself
            self.is_distributed_loading_by_transformers = True

    @property
    def is_divided(self) -> bool:
        """Whether processes have the item table together."""
        return self.prepared is not None and self.args.tp_size > 1

    @property
    def writes_parts(self) -> bool:
        return super().writes_parts or self.is_divided

    @property
    def mesh(self) -> DeviceMesh:
        """Of a divided run: copies ("dp") of processes that have the table together ("tp")."""
        mesh = mesh_of(self.args)
        assert mesh is not None
        return mesh

    def get_tp_size(self) -> int:
        return self.args.tp_size if self.is_divided else super().get_tp_size()

    def divided(self, model: Any) -> None:
        """Divides the tables of a model that is to be trained, if that was asked for and has not been done.

        Raises:
            ValueError: for a model that is no LSRM, one that is divided over other processes, and as `mesh_of` and
                `vocabulary_parallel.divide`.
        """
        if not self.is_divided:
            return
        if not isinstance(model, LSRMForCausalLM):
            raise ValueError(
                f"tp_size {self.args.tp_size} divides the item table of an LSRMForCausalLM, and this model is a "
                f"{type(model).__name__}: train it without (adapters too)."
            )
        part, group = head_division(model.lm_head), self.mesh[MESH].get_group()
        if part is None:
            divide(model, self.mesh)
        elif dist.get_process_group_ranks(part.group) != dist.get_process_group_ranks(group):
            raise ValueError(
                f"tp_size is {self.args.tp_size}, and the model's item table is divided over "
                f"{dist.get_world_size(part.group)} processes: make it with the mesh of `mesh_of(arguments)`."
            )

    # A step

    def _sync_replicated_trainable_parameters(self, model: nn.Module) -> None:
        # transformers would average gradients in backward, those of whole weights alone.
        if self.is_divided:
            begin_alike(model.parameters(), self.mesh)
        else:
            super()._sync_replicated_trainable_parameters(model)

    def _clip_grad_norm(self, model: Any) -> Any:
        return self._norm(model, self.args.max_grad_norm) if self.is_divided else super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if self.is_divided and grad_norm is None:
            grad_norm = self._norm(model, float("inf"))
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def _norm(self, model: nn.Module, most: float) -> torch.Tensor:
        """Once per step, before the optimizer's: the copies' gradients become one, and are clipped."""
        average_gradients(model.parameters(), self.mesh["dp"])
        return clip_gradients(model.parameters(), most)

    def _track_num_input_tokens(self, inputs: Any) -> None:
        if self.prepared is None:
            return super()._track_num_input_tokens(inputs)
        before = self.state.num_input_tokens_seen
        super()._track_num_input_tokens(inputs)
        self.state.num_input_tokens_seen = before + (self.state.num_input_tokens_seen - before) // self.get_tp_size()

    def floating_point_ops(self, inputs: dict[str, Any]) -> Any:
        """As transformers has it; on a prepared log of one process of each copy."""
        if self.prepared is None:
            return super().floating_point_ops(inputs)
        return super().floating_point_ops(inputs) / self.get_tp_size()

    # Checkpoints

    def check_kind(self, checkpoint: str) -> None:
        """As `ShardedTrainer.check_kind`, for tables that are divided too."""
        divided = os.path.isdir(os.path.join(checkpoint, _WEIGHTS))
        if divided != self.is_divided:
            was, now = ("divided", "whole") if divided else ("whole", "divided")
            raise ValueError(
                f"{checkpoint} was written with a {was} item table and this run has a {now} one: start it with the "
                "tp_size that it was begun with, or choose another output folder."
            )
        super().check_kind(checkpoint)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_divided:
            return super()._save_optimizer_and_scheduler(output_dir)
        parts.save(_weights(self.model), checkpoint_id=os.path.join(output_dir, _WEIGHTS))
        save_optimizer_distributed(self.model, self.optimizer, os.path.join(output_dir, _OPTIMIZER))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), os.path.join(output_dir, SCHEDULER_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_divided:
            return super()._load_optimizer_and_scheduler(checkpoint)
        load_optimizer_distributed(self.model, self.optimizer, os.path.join(checkpoint, _OPTIMIZER))
        self.lr_scheduler.load_state_dict(torch.load(os.path.join(checkpoint, SCHEDULER_NAME), weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.is_divided:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        parts.load(_weights(self.model), checkpoint_id=os.path.join(resume_from_checkpoint, _WEIGHTS))

    def _load_best_model(self) -> None:
        if self.is_divided:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a model learns and keeps by name, tied tables once; loading writes into it."""
    return {name: one.detach() for name, one in [*model.named_parameters(), *model.named_buffers()]}
