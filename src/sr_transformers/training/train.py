"""One training run from a recipe and a prepared log to a finished folder: weights, vocabulary, run.json."""

import contextlib
import datetime
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
from transformers import PreTrainedModel, set_seed

from sr_transformers.data.prepared import PreparedData
from sr_transformers.fingerprints import differing
from sr_transformers.locking import LOCK, only_one
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.records import RUN_FILE, RunRecord, write_whole
from sr_transformers.training.attention import choose_attention
from sr_transformers.training.binding import bind
from sr_transformers.training.checkpoints import last_complete_checkpoint
from sr_transformers.training.finish import finish, run_settings
from sr_transformers.training.preflight import check_launch, check_memory, check_test
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.trainer import LSRMTrainer
from sr_transformers.training.vocabulary_parallel import mesh_of, new_divided

SETTINGS = "settings.json"
_ROWS = ("per_device_train_batch_size", "gradient_accumulation_steps", "processes")  # their product: rows per update
_SHOWN = 5  # differences that a message names


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
    On another number of processes, with as many rows per update in all, it goes on with the same batches: the loss
    differs by rounding, dropout and sampled negatives only.

    Args:
        recipe: what to train and how.
        data: a prepared log.
        output_dir: made if missing. Afterwards it holds the model, its vocabulary, run.json and the checkpoints.
        callbacks: further Trainer callbacks.
        attn_implementation: "sdpa", "eager", "flash_attention_2", "torch_varlen", "flex_attention"; None: the fastest
            that suits model, precision and machine (`training.attention`; that of a `model` which has another attention
            than transformers' default is left as it is).
        model: weights to start from instead of fresh ones; it is trained in place, parameters that need no gradient
            stay. The recipe's `model` section is not looked at then.
        origin: where `model` comes from, in plain values: part of the settings and of the record.
        with_baselines: evaluate the baselines too; studies of many runs on one log need them once only.

    With `push_to_hub` and `hub_model_id` in the recipe the finished run is published (`LSRMTrainer.push_to_hub`).

    Raises:
        ValueError: if a file of the data or of the checkpoint to go on from is not what was written, if the log has no
            targets to validate or test on, if the machine lacks the memory for the model, if only one of `model` and
            `origin` is given (weights of unknown origin cannot be resumed), or if the model's items are not the log's.
        FileExistsError: if the folder holds a finished run, a run with other settings, or something else.
        BlockingIOError: if another process is training into the folder.
    """
    with fitted(recipe, data, output_dir, callbacks, attn_implementation, model, origin) as run:
        record = run.finish(with_baselines)
        if run.trainer.args.push_to_hub:
            run.trainer.push_to_hub()
        return record


@dataclass
class Fitted:
    """A run whose training is over, and which nobody has evaluated on the test targets.

    Attributes:
        recipe: that was trained.
        trainer: with the weights that validated best.
        settings: see `run_settings`.
        started: UTC, ISO 8601.
        seconds: wall time of training, of all parts of a run that was stopped and went on.
    """

    recipe: Recipe
    trainer: LSRMTrainer
    settings: dict[str, Any]
    started: str
    seconds: float

    def finish(self, with_baselines: bool = True) -> RunRecord:
        """Evaluates on the test targets and writes the finished folder."""
        return finish(self.trainer, self.recipe.name, self.settings, self.started, self.seconds, with_baselines)


@contextlib.contextmanager
def fitted(
    recipe: Recipe,
    data: PreparedData | str | Path,
    output_dir: str | Path,
    callbacks: list | None = None,
    attn_implementation: str | None = None,
    model: PreTrainedModel | None = None,
    origin: dict[str, Any] | None = None,
    as_it_stands: bool = False,
) -> Iterator[Fitted]:
    """`train` without its end: validated, but not evaluated on test; the folder is ours for the time of the block.

    Args:
        recipe, data, output_dir, callbacks, attn_implementation, model, origin: as `train`.
        as_it_stands: take no step: the best weights of the run that lies in the folder, at its last checkpoint.

    Raises:
        ValueError, FileExistsError, BlockingIOError: as `train`.
        FileNotFoundError: if a run is to be taken as it stands, and has no whole checkpoint.
    """
    check_launch()
    data = (data if isinstance(data, PreparedData) else PreparedData(data)).verified()
    output_dir = Path(output_dir).resolve()
    arguments = recipe.arguments(output_dir)
    mesh = mesh_of(arguments)
    if (model is None) != (origin is None):
        raise ValueError("model and origin belong together: give both to start from given weights, or neither.")
    check_test(data)
    with only_one(output_dir) if arguments.process_index == 0 else contextlib.nullcontext():
        config: Any = recipe.config(data.vocab_size) if model is None else model.config
        if attn_implementation is None and (model is None or config._attn_implementation == "sdpa"):
            attn_implementation = choose_attention(config, arguments)
        set_seed(arguments.seed)
        if model is None:
            check_memory(config, arguments.tp_size)
            extra: Any = {"attn_implementation": attn_implementation} if attn_implementation else {}
            if mesh is None:
                model = LSRMForCausalLM._from_config(config, **extra)
            else:
                model = new_divided(config, mesh, arguments.seed, **extra)
        elif attn_implementation:
            model.set_attn_implementation(attn_implementation)
        bind(model, data, arguments.filter_seen)
        settings = run_settings(model, arguments, data, origin)
        if recipe.chosen is not None:
            settings["chosen"] = recipe.chosen
        with arguments.main_process_first(local=False):
            checkpoint = _check_output(output_dir, settings)
        trainer = LSRMTrainer(
            model,
            arguments,
            train_dataset=data.train_dataset(),
            eval_dataset=data.eval_dataset("validation"),
            callbacks=callbacks,
        )
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with _settings_kept(output_dir, settings) if arguments.process_index == 0 else contextlib.nullcontext():
            if as_it_stands:
                trainer.take_best(checkpoint)
            else:
                trainer.train(resume_from_checkpoint=checkpoint)
        yield Fitted(recipe, trainer, settings, started, trainer.phases.seconds)


def leave_processes() -> None:
    """Ends the process group, if there is one, once every process is here. For the end of a program.

    A process that exits with its group alive can abort: the group's threads are then still running while the
    interpreter is taken down, and the launcher reports a finished training as failed.
    """
    state = accelerate.PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()


def _text(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n"


def _differences(stored: str, wanted: str) -> list[str]:
    """What differs between two texts of settings, in words, beside how many processes and micro-batches share an
    update's rows."""
    if stored == wanted:
        return []
    flat = []
    try:
        for settings in map(json.loads, (stored, wanted)):
            rows = math.prod(settings["training"].pop(name) for name in _ROWS)
            flat.append({"rows of an update": rows, **dict(_flat(settings))})
    except (ValueError, KeyError, TypeError, AttributeError):
        return ["the stored ones are damaged, or of another version"]
    found = differing(*flat)
    return [*found[:_SHOWN], *([f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])]


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        yield from _flat(value) if isinstance(value, dict) else [(name, value)]


def _check_output(output_dir: Path, settings: dict[str, Any]) -> str | None:
    """The checkpoint to go on from, after making sure that this folder is ours to write to."""
    if (output_dir / RUN_FILE).exists():
        raise FileExistsError(f"{output_dir} holds a finished run ({RUN_FILE}); choose another output folder.")
    stored = output_dir / SETTINGS
    checkpoint = last_complete_checkpoint(output_dir)
    if stored.is_file():
        # Without a whole checkpoint there is nothing to go on from, and nothing to lose.
        if checkpoint is not None and (other := _differences(stored.read_text(), _text(settings))):
            raise FileExistsError(
                f"{output_dir} holds a run with other settings (compare {stored}): {'; '.join(other)}. Choose another "
                "output folder, or start with the same recipe and data to go on with it."
            )
    elif output_dir.exists() and any(not path.name.startswith(".") for path in output_dir.iterdir()):
        raise FileExistsError(f"{output_dir} is not empty and holds no run of ours; choose another output folder.")
    return checkpoint


@contextlib.contextmanager
def _settings_kept(output_dir: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Leaves the settings beside the run; a run that failed before it had saved anything leaves nothing."""
    stored = output_dir / SETTINGS
    write_whole(stored, _text(settings))
    try:
        yield
    except BaseException:
        if not any(path != stored and path.name != LOCK for path in output_dir.iterdir()):
            stored.unlink()
        raise
