"""What is looked at before the first step, because it would make a run fail, or go wrong in silence, at its end."""

import math
import os
import warnings
from pathlib import Path

import torch
from transformers import TrainingArguments

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import UNK_ID
from sr_transformers.evaluation.evaluator import target_tokens
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig

# By these a launcher says how many processes there are.
_WORLD = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_BLOCK = 1 << 12  # targets looked at a time
# Schedules that read no warmup_steps.
NEVER_WARM = ("constant", "reduce_lr_on_plateau", "greedy")
# Bytes per parameter that no training does without: float32 weights and their gradients.
_LEAST = 8


def check_launch() -> None:
    """Refuses to be the only process where `accelerate launch` was asked for several.

    Without a configuration file that says how, accelerate takes `--cpu --num_processes 2` and starts one process. It
    then leaves an address for several to meet at, and does not say that there are any.

    Raises:
        ValueError: with the command that starts them.
    """
    alone = not any(name in os.environ for name in _WORLD)
    if alone and "ACCELERATE_MIXED_PRECISION" in os.environ and {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise ValueError(
            "accelerate was asked for several processes and has started one, because it needs a configuration file to "
            "know how: accelerate launch --config_file recipes/accelerate/cpu.yaml ... (ddp.yaml for GPUs; "
            "fsdp2_cpu.yaml and fsdp2.yaml for weights divided among them), with use_cpu false, on CPUs too."
        )


def check_validation(data: PreparedData, split: str = "validation") -> None:
    """Refuses to begin a run whose validation could not tell better weights from worse ones.

    Args:
        split: what it validates on.

    Raises:
        ValueError: if the log has no such targets, or if all of them lie outside the vocabulary.
    """
    if not _known(data, split):
        raise ValueError(
            f"{data.path}: {_nothing(data, split)}, so nothing would say which weights are best. Prepare the log with "
            "another split (for a temporal one: another moment), or train without validation: --eval_strategy no "
            "--save_strategy no --load_best_model_at_end false."
        )


def check_length(arguments: TrainingArguments, steps_per_epoch: int) -> None:
    """Refuses a run that would end before it validates, and warns of one that ends before it is warm.

    Raises:
        ValueError: for an `eval_delay` beyond the end: nothing would say which weights are best.
    """
    steps = arguments.max_steps
    if steps < 1:
        steps = math.ceil(arguments.num_train_epochs * steps_per_epoch)
    of_steps = arguments.eval_strategy == "steps"
    end, unit = (steps, "steps") if of_steps else (steps / steps_per_epoch, "epochs")
    if arguments.eval_strategy != "no" and arguments.eval_delay > end:
        raise ValueError(
            f"eval_delay is {arguments.eval_delay:g}, but the run has {end:,.4g} {unit}, so it would never validate; "
            "make it smaller, or train longer."
        )
    warm = arguments.get_warmup_steps(steps)
    if warm > steps and arguments.lr_scheduler_type not in NEVER_WARM and arguments.process_index == 0:
        warnings.warn(
            f"warmup_steps is {warm:,}, but the run has {steps:,} steps: it never reaches the learning rate "
            f"{arguments.learning_rate:g}, only {steps / warm:.1%} of it. Choose fewer, or a fraction such as 0.05.",
            stacklevel=2,
        )


def check_test(data: PreparedData) -> None:
    """Refuses to begin a run that could not be evaluated once it has trained.

    Raises:
        ValueError: if the log has no test targets, or if all of them lie outside the vocabulary: every rank would be
            missed, and there would be no loss.
    """
    if not _known(data, "test"):
        raise ValueError(
            f"{data.path}: {_nothing(data, 'test')}, so the trained model could not be evaluated; prepare the log with "
            "another split (for a temporal one: an earlier moment)."
        )


def _known(data: PreparedData, split: str) -> bool:
    """Whether a target of the split lies in the vocabulary."""
    blocks = (data.targets(split, start, start + _BLOCK) for start in range(0, data.num_targets(split), _BLOCK))
    return any(bool((target_tokens(data, block) != UNK_ID).any()) for block in blocks)


def _nothing(data: PreparedData, split: str) -> str:
    total = data.num_targets(split)
    return f"all {total:,} {split} targets lie outside the item vocabulary" if total else f"no {split} targets"


def check_memory(config: LSRMConfig, tp_size: int = 1) -> None:
    """Refuses a model before it is built if its weights and gradients alone are more than this machine has free.

    Args:
        tp_size: processes over which the item table is divided; this one has a part.

    Raises:
        ValueError: with the bytes needed and free, and the largest parts of the model.
    """
    tables = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    positions = config.max_position_embeddings * config.hidden_size
    needed = _LEAST * (config.num_non_embedding_parameters + tables // tp_size + positions)
    free = free_memory()
    if needed > free:
        raise ValueError(
            f"a model of {config.num_hidden_layers:,} layers x {config.hidden_size:,} over {config.vocab_size:,} "
            f"tokens needs at least {needed / 2**30:,.1f} GiB of memory for weights and gradients; this machine has "
            f"{free / 2**30:,.1f} GiB free: choose fewer num_hidden_layers, a smaller hidden_size, or fewer items. "
            "`sr-transformers plan` says what fits where."
        )


def free_memory() -> int:
    """Bytes that a new model may take: free memory of the machine within the limits of its container, or of the GPU if
    that has more (a model is built before it is moved).
    """
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
        free = min(free, int(limit) - int((group / "memory.current").read_text()))
    if torch.cuda.is_available():
        free = max(free, torch.cuda.mem_get_info()[0])
    return free
