"""One training run from a recipe and a prepared log to a finished folder: weights, vocabulary, run.json."""

import dataclasses
import datetime
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import accelerate
import datasets
import numpy as np
import torch
import transformers
from transformers import GenerationConfig, PreTrainedModel, set_seed

from sr_transformers import __version__
from sr_transformers.data.histories import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.evaluation.evaluator import evaluate, report
from sr_transformers.evaluation.metrics import DEFAULT_KS
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.records import RUN_FILE, RunRecord, source_commit, write_whole
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.trainer import LSRMTrainer, TargetDataset, last_complete_checkpoint

SETTINGS = "settings.json"


def train(
    recipe: Recipe,
    data: PreparedData | str | Path,
    output_dir: str | Path,
    callbacks: list | None = None,
    attn_implementation: str | None = None,
    with_baselines: bool = True,
) -> RunRecord:
    """Trains, keeps the weights that validated best, evaluates them on the test targets beside the baselines.

    A run that was interrupted goes on from its last complete checkpoint when it is started again with the same
    settings: the weights come out as if it had never stopped (same machine, same number of processes and threads).

    Args:
        recipe: what to train and how.
        data: a prepared log.
        output_dir: made if missing. Afterwards it holds the model, its vocabulary, run.json and the checkpoints.
        callbacks: further Trainer callbacks.
        attn_implementation: "sdpa", "eager", "flash_attention_2", "flex_attention"; None lets transformers choose.
        with_baselines: evaluate the baselines too; studies of many runs on one log need them once only.

    Raises:
        FileExistsError: if the folder holds a finished run, a run with other settings, or something else.
    """
    data = data if isinstance(data, PreparedData) else PreparedData(data)
    output_dir = Path(output_dir).resolve()
    arguments = recipe.arguments(output_dir)
    config = recipe.config(data.vocab_size)
    set_seed(arguments.seed)
    extra = {"attn_implementation": attn_implementation} if attn_implementation else {}
    model = LSRMForCausalLM._from_config(config, **extra)
    settings = {
        "model": {**config.to_diff_dict(), "attn_implementation": model.config._attn_implementation},
        "training": {**_plain(arguments), "processes": arguments.world_size},
        "data": data.manifest,
    }
    with arguments.main_process_first(local=False):
        checkpoint = _check_output(output_dir, settings, arguments.process_index)
    trainer = LSRMTrainer(model, arguments, data, callbacks)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - start

    start = time.perf_counter()
    totals = trainer.rank(TargetDataset(data, "test"), DEFAULT_KS)
    filter_seen = data.filters_seen(arguments.filter_seen)
    reports = [report(f"lsrm {recipe.name}", data, "test", filter_seen, totals, time.perf_counter() - start)]
    model.generation_config = generation_config(config.max_position_embeddings)
    model.config.use_cache = True  # the Trainer turned it off for training
    data.tokenizer.model_max_length = config.max_position_embeddings
    trainer.save_model(str(output_dir))
    if with_baselines and trainer.is_world_process_zero():
        reports += [
            evaluate(scorer, data, "test", DEFAULT_KS, filter_seen, progress=not arguments.disable_tqdm)
            for scorer in baselines(data)
        ]
    record = _record(recipe.name, trainer, settings, started, seconds, reports)
    if trainer.is_world_process_zero():
        record.save(output_dir)
    return record


def leave_processes() -> None:
    """Ends the process group, if there is one, once every process is here. For the end of a program.

    A process that exits with its group alive can abort: the group's threads are then still running while the
    interpreter is taken down, and the launcher reports a finished training as failed.
    """
    state = accelerate.PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()


def _record(
    name: str,
    trainer: LSRMTrainer,
    settings: dict[str, Any],
    started: str,
    seconds: float,
    reports: list[dict[str, Any]],
) -> RunRecord:
    """The record of a run whose trainer has finished."""
    state, arguments, config, data = trainer.state, trainer.args, trainer.model.config, trainer.prepared
    plan, epochs = trainer.sampler.plan, state.global_step / trainer.sampler.num_steps
    num_seen = round(plan.num_targets * epochs)
    items_scored = arguments.num_negatives + 1 if arguments.num_negatives else data.vocab_size
    best_step = (state.best_global_step if arguments.load_best_model_at_end else None) or state.global_step
    kept = [entry for entry in state.log_history if "eval_loss" in entry and entry["step"] == best_step]
    return RunRecord(
        name=name,
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        started=started,
        seed=arguments.seed,
        data=data.manifest,
        recipe={"model": settings["model"], "training": settings["training"]},
        versions=_versions(),
        commit=source_commit(),
        hardware=_hardware(arguments.world_size),
        num_non_embedding_parameters=config.num_non_embedding_parameters,
        parameters=count_parameters(trainer.accelerator.unwrap_model(trainer.model)),
        num_train_interactions=data.num_train_interactions,
        num_interactions_seen=num_seen,
        training_flops=6.0 * config.num_non_embedding_parameters * round(plan.num_positions * epochs),
        head_flops=6.0 * config.hidden_size * num_seen * items_scored,
        steps=state.global_step,
        epochs=epochs,
        best_step=best_step,
        switched_at=trainer.phases.switched_at,
        seconds=seconds,
        peak_memory_bytes=_peak_memory(),
        history=state.log_history,
        validation={key[5:]: value for entry in kept[-1:] for key, value in entry.items() if key.startswith("eval_")},
        reports=reports,
    )


def _check_output(output_dir: Path, settings: dict[str, Any], rank: int) -> str | None:
    """The checkpoint to go on from, after making sure that this folder is ours to write to."""
    if (output_dir / RUN_FILE).exists():
        raise FileExistsError(f"{output_dir} holds a finished run ({RUN_FILE}); choose another output folder.")
    stored = output_dir / SETTINGS
    checkpoint = last_complete_checkpoint(output_dir)
    text = json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n"
    if stored.exists():
        if stored.read_text() != text:
            raise FileExistsError(
                f"{output_dir} holds a run with other settings (compare {stored}); choose another output folder, or "
                "start with the same recipe and data to go on with it."
            )
    elif output_dir.exists() and any(not path.name.startswith(".") for path in output_dir.iterdir()):
        raise FileExistsError(f"{output_dir} is not empty and holds no run of ours; choose another output folder.")
    elif rank == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_whole(stored, text)
    return checkpoint


def generation_config(window: int) -> GenerationConfig:
    """Greedy continuation to the end of the window that never names a special token."""
    return GenerationConfig(
        do_sample=False, pad_token_id=PAD_ID, suppress_tokens=list(range(NUM_SPECIAL)), max_length=window
    )


def count_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Parameters by group; the groups are disjoint and sum to the model's total (tied weights counted once)."""
    groups = {"blocks": 0, "biases_and_norms": 0, "item_embedding": 0, "position_embedding": 0}
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name or "lm_head" in name:
            group = "item_embedding"
        elif "embed_positions" in name:
            group = "position_embedding"
        elif parameter.ndim == 2:
            group = "blocks"
        else:
            group = "biases_and_norms"
        groups[group] += parameter.numel()
    return groups


def _plain(arguments: Any) -> dict[str, Any]:
    """Arguments without what names this machine or this moment."""
    skipped = {"output_dir", "logging_dir", "local_rank", "deepspeed_plugin", "hub_token", "push_to_hub_token"}
    return {
        one.name: getattr(arguments, one.name)
        for one in dataclasses.fields(arguments)
        if one.init
        and one.name not in skipped
        and isinstance(getattr(arguments, one.name), str | int | float | bool | list | dict | None)
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "sr_transformers": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "datasets": datasets.__version__,
        "numpy": np.__version__,
    }


def _hardware(num_processes: int) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": num_processes,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
