"""What the training arguments may be: which of transformers' are honoured, the range of every number, the choices.

An argument that would be taken and then do nothing is refused by name. Every argument of transformers stands in exactly
one of `HONOURED` and `REFUSED`; a test says so when a new version of transformers brings another.
"""

import dataclasses
import inspect
import math
import numbers
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, get_scheduler
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames, trainer_log_levels

from sr_transformers.data.batches import FLAT, ROWS
from sr_transformers.data.packing import OBJECTIVES
from sr_transformers.training.row_updates import TABLE_UPDATES, row_problems
from sr_transformers.training.vocabulary_parallel import tp_problems

# Read by the Trainer of transformers or by ours, with the meaning that transformers gives it.
_HONOURED = """
output_dir per_device_train_batch_size num_train_epochs max_steps gradient_accumulation_steps seed data_seed
full_determinism use_cpu
learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args optim_target_modules weight_decay
adam_beta1 adam_beta2 adam_epsilon max_grad_norm
bf16 fp16 tf32 torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps
activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs
logging_strategy logging_steps logging_first_step logging_nan_inf_filter log_level log_level_replica
log_on_each_node include_num_input_tokens_seen disable_tqdm
report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id
eval_strategy eval_steps eval_delay do_eval
save_strategy save_steps save_total_limit load_best_model_at_end metric_for_best_model greater_is_better
push_to_hub hub_token hub_private_repo hub_model_id hub_revision
dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
fsdp fsdp_config deepspeed debug
"""
HONOURED = frozenset(_HONOURED.split())

_ROWS_OF_OURS = "rows are filled and ordered by row_width, objective and the seed"
_RANKED = "validation ranks all items by itself, in batches that fit into memory"
_OURS_TO_RESUME = "an interrupted run goes on by itself, exactly, when it is started again with the same output folder"

# Not honoured: name -> why, or what to use instead.
REFUSED = {
    "label_smoothing_factor": "the loss never holds the logits that it would smooth",
    "average_tokens_across_devices": "the loss is a mean over the targets of all processes",
    "bf16_full_eval": "validation computes as training does: set precision",
    "fp16_full_eval": "validation computes as training does: set precision",
    "use_liger_kernel": "its kernels know nothing of this model; the loss is chunked already",
    "liger_kernel_config": "its kernels know nothing of this model; the loss is chunked already",
    "use_cache": "training reads every row once; the saved model has its cache turned on anyway",
    "neftune_noise_alpha": "its noise is scaled by the length of a row, and rows hold several users",
    "auto_find_batch_size": "the steps of a run are fixed before it starts; set per_device_train_batch_size, "
    "`sr-transformers plan` says what fits",
    "per_device_eval_batch_size": _RANKED,
    "prediction_loss_only": _RANKED,
    "eval_do_concat_batches": _RANKED,
    "eval_use_gather_object": _RANKED,
    "eval_accumulation_steps": _RANKED,
    "include_for_metrics": _RANKED,
    "batch_eval_metrics": _RANKED,
    "eval_on_start": "a resumed run would evaluate once more than one that was never stopped",
    "save_only_model": "an interrupted run goes on exactly only with the state of its optimizer",
    "save_on_each_node": "all processes share one output folder",
    "enable_jit_checkpoint": _OURS_TO_RESUME,
    "ignore_data_skip": _OURS_TO_RESUME,
    "restore_callback_states_from_checkpoint": _OURS_TO_RESUME,
    "resume_from_checkpoint": _OURS_TO_RESUME,
    "hub_strategy": "checkpoints have no metrics to publish; use 'end'",
    "hub_always_push": "only the finished run is published",
    "accelerator_config": "batches are shared out by our own sampler, not by accelerate",
    "parallelism_config": "tp_size divides the item table, fsdp everything",
    "dataloader_drop_last": "every target is trained on once per epoch",
    "dataloader_in_order": "batches in another order would make another run of the same seed",
    "dataloader_multiprocessing_context": "workers are forked, so that they share the mapped log",
    "remove_unused_columns": _ROWS_OF_OURS,
    "label_names": _ROWS_OF_OURS,
    "train_sampling_strategy": _ROWS_OF_OURS,
    "length_column_name": _ROWS_OF_OURS,
    "skip_memory_metrics": "run.json has the peak of memory",
    "do_train": "it is what the command `train` does",
    "do_predict": "the command `evaluate` does it",
    "local_rank": "the launcher says it in the environment",
}


def _greater(low: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value > low, f"a number above {low:g}"


def _at_least(low: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value >= low, f"a number, at least {low:g}"


def _count(low: int, high: float = math.inf) -> tuple[Callable[[Any], bool], str]:
    words = f"a whole number, at least {low}" + (f" and at most {high:,}" if high < math.inf else "")
    return lambda value: bool(isinstance(value, int | np.integer) and low <= value <= high), words


def _fraction(closed: bool = False) -> tuple[Callable[[Any], bool], str]:
    if closed:
        return lambda value: 0 <= value <= 1, "a number in [0, 1]"
    return lambda value: 0 <= value < 1, "a number in [0, 1)"


_STEPS = (
    lambda value: 0 < value < 1 or (value >= 1 and value == int(value)),
    "a whole number of steps, at least 1, or a fraction of the run below 1",
)
_SEED = _count(0, 2**32 - 1)

# The range of every number, transformers' and ours; NaN and infinity are in none. None is one where the type has it.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "per_device_train_batch_size": _count(1),
    "num_train_epochs": _greater(0),
    "max_steps": (
        lambda value: isinstance(value, int | np.integer) and bool(value == -1 or value >= 1),
        "a whole number, at least 1 (or -1: num_train_epochs decides)",
    ),
    "gradient_accumulation_steps": _count(1),
    "seed": _SEED,
    "data_seed": _SEED,
    "learning_rate": _greater(0),
    "warmup_steps": _at_least(0),
    "weight_decay": _at_least(0),
    "adam_beta1": _fraction(),
    "adam_beta2": _fraction(),
    "adam_epsilon": _greater(0),
    "max_grad_norm": (lambda value: value >= 0, "a number, at least 0 (0: gradients are not clipped)"),
    "torch_empty_cache_steps": _count(1),
    "logging_steps": _STEPS,
    "eval_steps": _STEPS,
    "save_steps": _STEPS,
    "eval_delay": _at_least(0),
    "save_total_limit": (
        _count(2)[0],
        "a whole number, at least 2: a run that dies while saving resumes from the one before",
    ),
    "dataloader_num_workers": _count(0, 1024),
    "dataloader_prefetch_factor": _count(1, 1024),
    "ddp_bucket_cap_mb": _count(1),
    "ddp_timeout": _count(1),
    "row_width": _count(1, 1 << 20),
    "num_negatives": (_count(0)[0], "a whole number, at least 0 (0: full softmax)"),
    "negative_power": _fraction(closed=True),
    "table_lr_multiplier": _greater(0),
    "decay_epochs": _greater(0),
    "tp_size": _count(1),
    "sgd_learning_rate": _greater(0),
    "sgd_momentum": _fraction(),
    "patience": _count(1),
}

CHOICES: dict[str, tuple[Any, ...]] = {
    "optim": tuple(one.value for one in OptimizerNames),
    "optimizer": (None, "muon"),
    "table_updates": TABLE_UPDATES,
    "lr_scheduler_type": tuple(one.value for one in SchedulerType),
    "eval_strategy": tuple(one.value for one in IntervalStrategy),
    "logging_strategy": tuple(one.value for one in IntervalStrategy),
    "save_strategy": tuple(one.value for one in SaveStrategy),
    "objective": OBJECTIVES,
    "layout": ("auto", ROWS, FLAT),
    "precision": ("auto", "bf16", "fp32"),
    "log_level": tuple(trainer_log_levels),
    "log_level_replica": tuple(trainer_log_levels),
    "include_num_input_tokens_seen": ("no", "all", "non_padding", True, False),
    "torch_compile_mode": (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
}

_BY_METRIC = ("reduce_lr_on_plateau", "greedy")  # schedules that follow the metric of validation
# What the schedules of transformers are given beside lr_scheduler_kwargs.
_NOT_OF_SCHEDULES = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "kwargs")
_MANY_STEPS = 1 << 20
# Optimizers without settings beyond the arguments that have a name of their own.
_NO_OPTIM_ARGS = """
adamw_torch adamw_torch_fused adamw_torch_xla adamw_torch_npu_fused adafactor adamw_bnb_8bit adamw_8bit
paged_adamw_32bit paged_adamw_8bit lion_8bit lion_32bit paged_lion_32bit paged_lion_8bit lomo adalomo
"""
# What transformers reads of `optim_args` for torch's own optimizers.
OPTIM_ARGS = {
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "weight_decay", "centered"),
}
_SWITCHES = ("nesterov", "centered")


def _name(choice: Any) -> str:
    """A choice as text, whether transformers has made a member of an enumeration of it yet or not."""
    return str(getattr(choice, "value", choice))


def check_arguments(arguments: Any) -> None:
    """Refuses what would do nothing, and numbers out of their range; called before transformers' own checks.

    Raises:
        ValueError: naming the argument, its value, and what to do.
    """
    fields = {one.name: one for one in dataclasses.fields(arguments) if one.init}
    for name, reason in REFUSED.items():
        if name in fields and _is_set(fields[name], getattr(arguments, name)):
            raise ValueError(f"{name} is {getattr(arguments, name)!r}, which is not supported: {reason}.")
    for name, (allowed, words) in RANGES.items():
        value = getattr(arguments, name)
        if value is None and type(None) in typing.get_args(fields[name].type):
            continue
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not allowed(value):
            raise ValueError(f"{name} is {value!r}; it must be {words}.")
    for name, choices in CHOICES.items():
        if getattr(arguments, name) not in choices:
            shown = ", ".join(str(choice) for choice in choices if isinstance(choice, str))
            raise ValueError(f"{name} is {getattr(arguments, name)!r}; choose from {shown}.")
    if problems := row_problems(arguments):
        raise ValueError(
            f"table_updates {arguments.table_updates} moves the rows of a step only; it needs {'; '.join(problems)}."
        )
    if problems := tp_problems(arguments):
        raise ValueError(f"tp_size {arguments.tp_size} divides the item table; it needs {'; '.join(problems)}.")
    for name, used, needs in _refinements(arguments):
        if not used and _is_set(fields[name], getattr(arguments, name)):
            raise ValueError(f"{name} is {getattr(arguments, name)!r}, but nothing reads it: it needs {needs}.")
    _check_optim_args(arguments)
    _check_saving(arguments)


def _check_saving(arguments: Any) -> None:
    """Refuses checkpoints of other moments than those of validation.

    What validated best would have no checkpoint of its own, and of a checkpoint before a validation a run that goes on
    would never make that up.
    """
    validates, saves = map(_name, (arguments.eval_strategy, arguments.save_strategy))
    if validates == "no" or saves == "best":
        return
    if saves == "no":
        if arguments.switch_optimizer:
            raise ValueError(
                "save_strategy is 'no', but SGD begins with the weights that validated best: save as often as "
                "eval_strategy says, or set switch_optimizer to false."
            )
        return
    if saves != validates:
        raise ValueError(
            f"save_strategy is {saves!r} and eval_strategy {validates!r}: checkpoints are kept by what they validate "
            "with, so both must be the same (or save_strategy best or no)."
        )
    every = arguments.eval_steps or arguments.logging_steps  # as transformers has it
    if validates == "steps" and arguments.save_steps != every:
        raise ValueError(
            f"save_steps is {arguments.save_steps:g} and eval_steps {every:g}: checkpoints are kept by what they "
            "validate with, so both must be the same."
        )


def _check_optim_args(arguments: Any) -> None:
    """Of torch's own optimizers: transformers skips a key that it does not know without a word."""
    optimizer = _name(arguments.optim)
    if not arguments.optim_args or optimizer not in OPTIM_ARGS:
        return
    takes = f"{optimizer} takes {', '.join(OPTIM_ARGS[optimizer])}"
    for part in arguments.optim_args.replace(" ", "").split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in OPTIM_ARGS[optimizer]:
            raise ValueError(
                f"optim_args is {arguments.optim_args!r}: {part!r} is none of KEY=VALUE that it reads; {takes}."
            )
        if key in _SWITCHES:
            if value.lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise ValueError(f"optim_args is {arguments.optim_args!r}: {key} must be true or false.")
            continue
        try:
            fits = math.isfinite(float(value))
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"optim_args is {arguments.optim_args!r}: {key} must be a number, and {value!r} is none.")


def point_schedule(arguments: Any) -> None:
    """Makes a schedule that follows validation follow it the right way; transformers' own take everything for a loss.

    Raises:
        ValueError: for a `mode` in `lr_scheduler_kwargs` that contradicts the metric.
    """
    if _name(arguments.lr_scheduler_type) not in _BY_METRIC:
        return
    given, mode = dict(arguments.lr_scheduler_kwargs or {}), "max" if arguments.greater_is_better else "min"
    if given.setdefault("mode", mode) != mode:
        raise ValueError(
            f"lr_scheduler_kwargs: mode is {given['mode']!r}, but {arguments.metric_for_best_model} is better the "
            f"{'greater' if mode == 'max' else 'smaller'} it is; leave it out."
        )
    arguments.lr_scheduler_kwargs = given


def check_schedule(arguments: Any) -> None:
    """Refuses `lr_scheduler_kwargs` with which there is no schedule; called when transformers has read them.

    Raises:
        ValueError: with what the schedule takes.
    """
    given = arguments.lr_scheduler_kwargs or {}
    optimizer = torch.optim.SGD([torch.zeros(1)], arguments.learning_rate)
    try:
        get_scheduler(arguments.lr_scheduler_type, optimizer, 1, _MANY_STEPS, given)
    except (TypeError, ValueError) as error:
        schedule = arguments.lr_scheduler_type.value
        making: Any = TYPE_TO_SCHEDULER_FUNCTION[schedule]
        words = ", ".join(name for name in inspect.signature(making).parameters if name not in _NOT_OF_SCHEDULES)
        raise ValueError(
            f"lr_scheduler_kwargs is {given}, which makes no schedule {schedule}: {error}."
            + (f" It takes {words}." if words else "")
        ) from error


def _is_set(field: dataclasses.Field, value: Any) -> bool:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    # A copy of finished arguments carries what transformers made of the default.
    if field.name == "accelerator_config" and value is not None and not isinstance(value, dict | str):
        default = type(value)()
    return bool(value != default and value != {})  # an empty dictionary says nothing


def _refinements(arguments: Any) -> list[tuple[str, bool, str]]:
    """(argument, whether something reads it, what it needs for that), where what it refines is off by default."""
    trackers = arguments.report_to if isinstance(arguments.report_to, list | tuple) else [arguments.report_to]
    tracked = bool(set(trackers) - {"none", None})
    trackio = bool({"trackio", "all"} & set(trackers))
    optimizer = _name(arguments.optim)
    schedule = _name(arguments.lr_scheduler_type)
    recomputes = bool(arguments.activation_checkpointing or arguments.gradient_checkpointing)
    workers = arguments.dataloader_num_workers > 0
    return [
        ("run_name", tracked, "a tracker in report_to"),
        ("project", trackio, "trackio in report_to"),
        ("trackio_space_id", trackio, "trackio in report_to"),
        ("trackio_bucket_id", trackio, "trackio in report_to"),
        ("trackio_static_space_id", trackio, "trackio in report_to"),
        ("lr_scheduler_kwargs", not schedule.startswith("constant"), f"another lr_scheduler_type than {schedule}"),
        ("optim_args", optimizer not in _NO_OPTIM_ARGS.split(), f"another optimizer than {optimizer}"),
        ("optim_target_modules", optimizer.startswith(("galore", "apollo")), "a galore or apollo optimizer in optim"),
        ("activation_checkpointing_kwargs", recomputes, "activation_checkpointing"),
        ("gradient_checkpointing_kwargs", recomputes, "activation_checkpointing"),
        ("fsdp_config", bool(arguments.fsdp), "fsdp"),
        ("dataloader_persistent_workers", workers, "dataloader_num_workers"),
        ("dataloader_prefetch_factor", workers, "dataloader_num_workers"),
        ("do_eval", arguments.eval_strategy != "no", "eval_strategy steps or epoch"),
        ("hub_revision", arguments.hub_model_id is not None, "hub_model_id"),
        ("hub_private_repo", arguments.hub_model_id is not None, "hub_model_id"),
    ]
