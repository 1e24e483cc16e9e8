"""The end of a run: evaluation on the test targets, the finished folder, run.json."""

import dataclasses
import os
import platform
import resource
import time
from typing import Any

import accelerate
import datasets
import numpy as np
import torch
import transformers
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from sr_transformers import __version__
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.evaluation.comparison import evaluate_floors, paired_difference
from sr_transformers.evaluation.evaluator import report
from sr_transformers.evaluation.metrics import DEFAULT_KS
from sr_transformers.lsrm.scoring_lsrm import item_range
from sr_transformers.public import last_part
from sr_transformers.records import RunRecord, command_line, source_commit
from sr_transformers.training.arguments import LSRMTrainingArguments
from sr_transformers.training.mixing import fit_mix
from sr_transformers.training.run_report import write_report


def run_settings(
    model: PreTrainedModel,
    arguments: LSRMTrainingArguments,
    data: PreparedData,
    origin: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """All that moves a number of a run: its model, training, data and where its first weights came from."""
    return {
        "model": {**model.config.to_diff_dict(), "attn_implementation": model.config._attn_implementation},
        "training": {**_plain(arguments), "processes": arguments.world_size},
        "data": data.manifest,
        **({"origin": origin} if origin is not None else {}),
    }


def finish(
    trainer: Any, name: str, settings: dict[str, Any], started: str, seconds: float, with_baselines: bool = True
) -> RunRecord:
    """Ranks the test targets, evaluates the baselines, and writes model, vocabulary and run.json.

    To be called by all processes.

    Args:
        trainer: an `LSRMTrainer` that has trained; its `output_dir` becomes the finished folder.
        name: of the recipe.
        settings: see `run_settings`, as they were before training.
        started: UTC, ISO 8601; seconds: wall time of training.
        with_baselines: evaluate the baselines too.
    """
    arguments, data, model = trainer.args, trainer.prepared, trainer.model
    num_items = data.vocab_size - NUM_SPECIAL
    mixes = getattr(getattr(model, "history", None), "mix", None) is not None
    metric = str(arguments.metric_for_best_model).removeprefix("eval_")
    fitted = fit_mix(model, data, metric) if mixes else None
    validation = None if fitted is None else trainer.rank(data.eval_dataset("validation"))[0].metrics(num_items)
    start = time.perf_counter()
    totals, ranks = trainer.rank(data.eval_dataset("test"), DEFAULT_KS)
    filter_seen = data.filters_seen(arguments.filter_seen)
    query_time = bool(getattr(model.config, "query_time", False))
    reports = [report(f"lsrm {name}", data, "test", filter_seen, totals, time.perf_counter() - start, query_time)]
    if fitted is not None:
        reports[0]["fitted"] = fitted
    model.generation_config = generation_config(model.config)
    model.config.use_cache = True  # the Trainer turned it off for training
    data.tokenizer.model_max_length = model.config.max_position_embeddings
    trainer.save_model(arguments.output_dir, _internal_call=True)  # a push now would lack the record
    if with_baselines and trainer.is_world_process_zero():
        floors, progress = baselines(data, filter_seen, query_time), not arguments.disable_tqdm
        below, mix = evaluate_floors(floors, data, "test", DEFAULT_KS, filter_seen, progress)
        if mix is not None:
            reports[0]["against_mix"] = paired_difference(ranks, mix)
        reports += below
    record = _record(name, trainer, settings, started, seconds, reports)
    if validation is not None:  # of the model as it is saved, not of that which the steps ended with
        record = dataclasses.replace(record, validation=validation)
    if trainer.is_world_process_zero():
        record.save(arguments.output_dir)
        if with_baselines:
            write_report(record, arguments.output_dir)
    return record


def _record(
    name: str,
    trainer: Any,
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
        command=command_line(),
        started=started,
        seed=arguments.seed,
        data=data.manifest,
        recipe={name: section for name, section in settings.items() if name != "data"},
        versions=_versions(),
        commit=source_commit(),
        hardware={**machine(), "processes": arguments.world_size, "parameter_bytes": trainer.parameter_bytes()},
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


def generation_config(config: PreTrainedConfig) -> GenerationConfig:
    """Greedy continuation that never names what is no item (see `scoring_lsrm.item_range`)."""
    first, last = item_range(config)
    return GenerationConfig(
        do_sample=False,
        pad_token_id=PAD_ID,
        suppress_tokens=[*range(first), *range(last, config.vocab_size)],
    )


def count_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Parameters by group; the groups are disjoint and sum to the model's total (tied weights counted once). A model
    with `history` has a group of that name too."""
    groups = {"blocks": 0, "biases_and_norms": 0, "item_embedding": 0, "position_embedding": 0}
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name or "lm_head" in name:
            group = "item_embedding"
        elif "embed_positions" in name:
            group = "position_embedding"
        elif name.startswith("history.") or ".clock." in name:
            group = "history"
        elif parameter.ndim == 2 and ".attention_bias." not in name:
            group = "blocks"
        else:
            group = "biases_and_norms"
        groups[group] = groups.get(group, 0) + parameter.numel()
    return groups


def _plain(arguments: Any) -> dict[str, Any]:
    """Arguments without what names this machine or this moment."""
    skipped = {"output_dir", "logging_dir", "local_rank", "deepspeed_plugin", "hub_token", "push_to_hub_token"}
    values = {one.name: getattr(arguments, one.name) for one in dataclasses.fields(arguments) if one.init}
    return {
        name: last_part(value) if isinstance(value, str) and os.path.isabs(value) else value
        for name, value in values.items()
        if name not in skipped and isinstance(value, str | int | float | bool | list | dict | None)
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


def machine() -> dict[str, Any]:
    """What the speed of a run depends on."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
