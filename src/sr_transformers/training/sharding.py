"""A Trainer whose weights, gradients and optimizer state are divided among the processes: FSDP2, on GPUs or CPUs.

Asked for by the launcher (`accelerate launch` with a configuration like fsdp2.yaml, which sets ACCELERATE_USE_FSDP) or
by the argument `fsdp`. Who asks for it gets it or an error, never whole weights on every process.
"""

import os
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather_object
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Trainer

from sr_transformers.data.prepared import PreparedData
from sr_transformers.training.arguments import SHARDED
from sr_transformers.training.optimizers import MUON

_MODEL_FOLDER = "pytorch_model_fsdp_0"  # of a checkpoint, as accelerate calls it
_START = (
    "start several with a launcher, for example: accelerate launch --config_file recipes/accelerate/fsdp2.yaml ... "
    "(fsdp2_cpu.yaml without GPUs)"
)


class ShardedTrainer(Trainer):
    """transformers' Trainer on a prepared log, as far as it concerns several processes; with `prepared` None it is
    transformers' own.

    Attributes:
        prepared: the log; None for data sets of another kind.
    """

    # On a prepared log LSRMTrainingArguments and an LSRMForCausalLM; else transformers' own.
    args: Any
    model: Any
    prepared: PreparedData | None

    def create_accelerator_and_postprocess(self) -> None:
        """Makes the accelerator.

        Raises:
            ValueError: if weights were to be divided in a way that is not supported here, or would not be.
        """
        if self.prepared is None:
            return super().create_accelerator_and_postprocess()
        if _is_on("ACCELERATE_USE_PARALLELISM_CONFIG"):
            raise ValueError(
                "the launcher's parallelism_config is not supported, for accelerate has no copies of a model beside "
                "tensor parallelism: leave it out, and give the argument tp_size instead of parallelism_config_tp_size."
            )
        asked, state = _asked_by(self.args), PartialState()
        if self.args.tp_size > 1 and (asked or _is_on("ACCELERATE_USE_DEEPSPEED")):
            raise ValueError(
                f"tp_size {self.args.tp_size} divides the item table, and the launcher asks for FSDP or DeepSpeed: "
                "start with torchrun, or with a configuration without them (cpu.yaml, ddp.yaml)."
            )
        if asked and state.num_processes < 2:
            raise ValueError(f"{asked} asks for sharded weights, and there is one process only: {_START}.")
        # accelerate takes FSDP up for processes on GPUs alone, and on CPUs would leave whole weights on every process.
        # The code that follows is the same for both, so for that moment these are processes of the other kind.
        on_cpu = bool(asked) and state.distributed_type == DistributedType.MULTI_CPU
        if on_cpu:
            state.distributed_type = DistributedType.MULTI_GPU
        try:
            super().create_accelerator_and_postprocess()
        finally:
            if on_cpu and state.distributed_type == DistributedType.MULTI_GPU:
                state.distributed_type = DistributedType.MULTI_CPU
        self._check_accelerator(asked)

    def _check_accelerator(self, asked: str) -> None:
        accelerator, args = self.accelerator, self.args
        if accelerator.parallelism_config is not None:
            raise ValueError("a parallelism_config is not supported: leave it out; fsdp and tp_size need none.")
        if (args.deepspeed or _is_on("ACCELERATE_USE_DEEPSPEED")) and not self.is_deepspeed_enabled:
            raise ValueError("DeepSpeed was asked for, and accelerate has not taken it up: start with its launcher.")
        if self.is_deepspeed_enabled and args.switch_optimizer:
            raise ValueError("DeepSpeed cannot change its optimizer; train with switch_optimizer false.")
        if self.is_deepspeed_enabled and accelerator.state.deepspeed_plugin.zero_stage == 3:
            raise ValueError(
                "ZeRO stage 3 is not supported: it would begin with other weights than one process does. FSDP2 divides "
                "the same things (fsdp2.yaml, or the argument fsdp); or use stage 2."
            )
        if args.optimizer == MUON and self.is_deepspeed_enabled:
            raise ValueError(
                "optimizer muon needs whole matrices, and DeepSpeed hands out parts of them; leave it out."
            )
        if asked:
            plugin = accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
            if plugin is None or accelerator.distributed_type != DistributedType.FSDP:
                raise ValueError(
                    f"{asked} asks for sharded weights, and accelerate would train whole ones on every process "
                    f"({accelerator.distributed_type.value}): {_START}."
                )
            _check_plugin(plugin, args)
            # bf16 is autocast's, as on one process: accelerate would round weights, gradients and even the loss.
            plugin.mixed_precision_policy = None

    @property
    def is_sharded(self) -> bool:
        """Whether the model is one whose weights are divided by FSDP, which it is from the beginning of training."""
        return isinstance(self.model, FSDPModule)

    @property
    def writes_parts(self) -> bool:
        """Whether every process writes its part of a checkpoint."""
        return self.is_sharded

    @property
    def in_step(self) -> bool:
        """Whether a forward of the model waits for that of all other processes, so that all need equally many."""
        return self.is_sharded or self.is_deepspeed_enabled

    @property
    def data_shard(self) -> tuple[int, int]:
        """(i, n): this process reads the i-th of n parts of every batch.

        Processes that share the tables of one copy of the model, by tensor parallelism, read the same part.
        """
        together = self.get_tp_size()
        return self.args.process_index // together, self.args.world_size // together

    @property
    def speaks_for_shard(self) -> bool:
        """Whether this process is the one whose numbers count, of those that read the same part."""
        return self.args.process_index % self.get_tp_size() == 0

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        """The precision of the arguments: accelerate puts it around the `forward` of other models, not of FSDP's."""
        if self.prepared is not None and self.is_fsdp_enabled:
            return self.accelerator.autocast()
        return super().autocast_smart_context_manager(cache_enabled)

    def parameter_bytes(self) -> list[int]:
        """Bytes of the weights that each process holds between steps."""
        reshard(self.model)
        parts = (one.to_local() if isinstance(one, DTensor) else one for one in self.model.parameters())
        mine = sum(one.numel() * one.element_size() for one in parts)
        return [mine] if self.args.world_size == 1 else gather_object([mine])

    def check_kind(self, checkpoint: str) -> None:
        """Refuses a checkpoint that was written with weights divided otherwise than now.

        Raises:
            ValueError: with what to do.
        """
        sharded = os.path.isdir(os.path.join(checkpoint, _MODEL_FOLDER))
        if sharded != self.is_fsdp_enabled:
            was, now = ("sharded", "whole") if sharded else ("whole", "sharded")
            raise ValueError(
                f"{checkpoint} holds {was} weights and this run has {now} ones: start it with the launcher and "
                "configuration that it was begun with, or choose another output folder."
            )

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.prepared is None or not self.is_fsdp_enabled:
            return super()._prepare_for_training(*args, **kwargs)
        if not isinstance(self.model, PreTrainedModel):
            raise ValueError("adapters (lora_rank) cannot be trained with sharded weights; start without FSDP.")
        _store_tied_once(self.model)
        result = super()._prepare_for_training(*args, **kwargs)
        whole = [name for name, one in self.model.named_parameters() if not isinstance(one, DTensor)]
        if whole:
            raise ValueError(f"FSDP left weights whole on every process: {', '.join(whole)}.")
        return result

    def _load_best_model(self) -> None:
        if self.prepared is not None and self.is_fsdp_enabled:
            _store_tied_once(self.model)
            reshard(self.model)
        super()._load_best_model()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the model as one process would: of sharded weights the first process gathers one tensor after the
        other in its CPU's memory, and writes. To be called by all processes."""
        if self.prepared is None or not self.is_sharded:
            return super().save_model(output_dir, _internal_call)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights, sharded = get_model_state_dict(self.model, options=options), self.model
        if self.args.should_save:
            # Not the sharded model itself: its class is torch's, and so would be the source files beside the weights.
            kind: Any = next(one for one in type(sharded).__mro__ if not issubclass(one, FSDPModule))
            with torch.device("meta"):
                self.model = kind(sharded.config)
            self.model.generation_config = sharded.generation_config
            try:
                self._save(output_dir, weights)
            finally:
                self.model = sharded
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)


def reshard(model: torch.nn.Module) -> None:
    """Gives up the weights that FSDP has gathered: after a forward without backward some groups still are whole, and
    what lists the model's parameters then would find tensors that are about to go."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def zero_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives SGD the momentum that it begins with, zero.

    Saving a sharded optimizer without state makes torch take a step of gradients zero, which would leave weight decay
    times the weights there.
    """
    for group in optimizer.param_groups:
        for one in group["params"] if group["momentum"] else []:
            optimizer.state[one]["momentum_buffer"] = torch.zeros_like(one)


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() == "true"


def _asked_by(args: Any) -> str:
    """Who asks for FSDP, in words; "" if nobody does."""
    if args.fsdp:
        return "the argument fsdp"
    return "the launcher (ACCELERATE_USE_FSDP)" if _is_on("ACCELERATE_USE_FSDP") else ""


def _check_plugin(plugin: Any, args: Any) -> None:
    """Refuses settings of FSDP that are not honoured here, by their names in a launcher's configuration."""
    refused = [
        (plugin.fsdp_version != 2, "fsdp_version 1", "only FSDP2 shares tied tables correctly: set fsdp_version 2"),
        (
            plugin.state_dict_type is None or plugin.state_dict_type.name != SHARDED,
            f"fsdp_state_dict_type other than {SHARDED}",
            f"every process writes its own part of a checkpoint: set {SHARDED}",
        ),
        (
            plugin.activation_checkpointing,
            "fsdp_activation_checkpointing",
            "it would draw other dropout in backward than in forward: use the argument activation_checkpointing",
        ),
        (
            plugin.cpu_ram_efficient_loading,
            "fsdp_cpu_ram_efficient_loading",
            "every process builds the model: set it to false",
        ),
        (plugin.cpu_offload is True or _offloads(plugin), "fsdp_offload_params", "set it to false"),
        (plugin.ignored_modules is not None, "fsdp_ignored_modules", "all weights are divided: leave it out"),
        (args.fp16, "fp16", "use precision bf16 or fp32"),
        (args.torch_compile, "torch_compile", "a graph breaks wherever weights are gathered; leave it out"),
    ]
    for found, name, instead in refused:
        if found:
            raise ValueError(f"{name} is not supported with sharded weights: {instead}.")


def _offloads(plugin: Any) -> bool:
    return type(plugin.cpu_offload).__name__ == "CPUOffloadPolicy"


def _store_tied_once(model: Any) -> None:
    """Makes a tied table appear once in what a model stores, instead of under each of its names."""
    names = dict(model.named_parameters(remove_duplicate=False))
    tied = getattr(model, "_tied_weights_keys", None) or {}
    pairs = [(copy, kept) for copy, kept in tied.items() if names[copy] is names[kept]]
    if not pairs or getattr(model, "_stores_tied_once", False):
        return

    def leave_out(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for copy, _kept in pairs:
            state.pop(prefix + copy, None)

    def put_back(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for copy, kept in pairs:
            state.setdefault(prefix + copy, state[prefix + kept])

    model.register_state_dict_post_hook(leave_out)
    model.register_load_state_dict_pre_hook(put_back)
    model._stores_tied_once = True
