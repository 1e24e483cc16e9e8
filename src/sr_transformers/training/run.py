"""One training run from a recipe and a prepared log to a finished folder: weights, vocabulary, run.json."""

import datetime
import json
import time
from pathlib import Path
from typing import Any

import accelerate
from transformers import PreTrainedModel, set_seed

from sr_transformers.data.histories import PreparedData
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.records import RUN_FILE, RunRecord, write_whole
from sr_transformers.training.binding import bind
from sr_transformers.training.finish import finish, run_settings
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.trainer import LSRMTrainer, last_complete_checkpoint

SETTINGS = "settings.json"


def train(
    recipe: Recipe,
    data: PreparedData | str | Path,
    output_dir: str | Path,
    callbacks: list | None = None,
    attn_implementation: str | None = None,
    model: PreTrainedModel | None = None,
    origin: dict[str, Any] | None = None,
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
        model: weights to start from instead of fresh ones; it is trained in place, parameters that need no gradient
            stay. The recipe's `model` section is not looked at then.
        origin: where `model` comes from, in plain values: part of the settings and of the record.
        with_baselines: evaluate the baselines too; studies of many runs on one log need them once only.

    With `push_to_hub` and `hub_model_id` in the recipe the finished run is published (`LSRMTrainer.push_to_hub`).

    Raises:
        ValueError: if a file of the data is not what was made (`PreparedData.verified`); if only one of `model` and
            `origin` is given: weights of unknown origin cannot be resumed; if the model's items are not the log's, or
            the log's vocabulary is not the one its histories were written with.
        FileExistsError: if the folder holds a finished run, a run with other settings, or something else.
    """
    data = (data if isinstance(data, PreparedData) else PreparedData(data)).verified()
    output_dir = Path(output_dir).resolve()
    arguments = recipe.arguments(output_dir)
    if (model is None) != (origin is None):
        raise ValueError("model and origin belong together: give both to start from given weights, or neither.")
    set_seed(arguments.seed)
    if model is None:
        extra = {"attn_implementation": attn_implementation} if attn_implementation else {}
        model = LSRMForCausalLM._from_config(recipe.config(data.vocab_size), **extra)
    elif attn_implementation:
        model.set_attn_implementation(attn_implementation)
    bind(model, data, arguments.filter_seen)
    settings = run_settings(model, arguments, data, origin)
    with arguments.main_process_first(local=False):
        checkpoint = _check_output(output_dir, settings, arguments.process_index)
    trainer = LSRMTrainer(model, arguments, data, callbacks)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - start
    record = finish(trainer, recipe.name, settings, started, seconds, with_baselines)
    if arguments.push_to_hub:
        trainer.push_to_hub()
    return record


def leave_processes() -> None:
    """Ends the process group, if there is one, once every process is here. For the end of a program.

    A process that exits with its group alive can abort: the group's threads are then still running while the
    interpreter is taken down, and the launcher reports a finished training as failed.
    """
    state = accelerate.PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()


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
