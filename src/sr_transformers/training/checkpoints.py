"""Checkpoints that are whole: what a run may go on from, and what it refuses to.

The last file of a checkpoint is `COMPLETE`: name, size and SHA-256 of every other file. A checkpoint without it was
being written when its run died, and is passed over. One whose files are not those that it names was changed afterwards:
to go on from it would give other weights than the run that was never stopped, so it is refused.
"""

import json
import re
from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from sr_transformers.evaluation.weights import COMPLETE, refuse_changed, sha256
from sr_transformers.records import write_whole
from sr_transformers.training.phases import TrainingPhases

SHARD_INDEX = ".metadata"  # torch's name for what says which file has which part of a tensor
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


def step_of(checkpoint: Path) -> int:
    """The global step in a checkpoint's name."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Folders of checkpoints, whole or not, newest first."""
    found = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _NAME.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir()), key=step_of, reverse=True)


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint that was written whole, or None."""
    return next((str(folder) for folder in checkpoints(output_dir) if (folder / COMPLETE).exists()), None)


def mark_complete(folder: Path) -> None:
    """Writes `COMPLETE` into a checkpoint that nobody writes to any more."""
    files = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in _files(folder).items()}
    write_whole(folder / COMPLETE, json.dumps(files, indent=1) + "\n")


def verify_checkpoint(folder: str | Path) -> None:
    """Makes sure that a checkpoint is whole and as it was written.

    Raises:
        FileNotFoundError: if it does not exist or was not written to its end.
        ValueError: if a file is missing, was changed, or was not there when it was written; the message names it.
    """
    folder = Path(folder)
    if not (folder / COMPLETE).is_file():
        raise FileNotFoundError(f"{folder} is no complete checkpoint of this library (it has no file {COMPLETE}).")
    instead = (
        "The run cannot go on as if it had never stopped. Put the file back, remove the whole of "
        f"{folder} to go on from the checkpoint before it, or choose another output folder."
    )
    added = sorted(set(_files(folder)) - refuse_changed(folder, instead))
    if added:
        raise ValueError(f"{folder / added[0]} was put there after the checkpoint was written; take it away.")


def best_beside(checkpoint: str | Path) -> str | None:
    """The checkpoint that had validated best when another was written, in the same folder; None if there was none yet.

    Raises:
        FileNotFoundError, ValueError: as `verify_checkpoint`, if it is not as it was written.
    """
    checkpoint = Path(checkpoint)
    name = best_name(checkpoint)
    if name is None:
        return None
    best = checkpoint.parent / name
    if not best.is_dir():
        raise FileNotFoundError(
            f"{best} is missing, and {checkpoint} needs it: its weights had validated best. Put it back, or choose "
            "another output folder."
        )
    verify_checkpoint(best)
    return str(best)


def best_name(checkpoint: Path) -> str | None:
    """Name of the checkpoint that had validated best when this one was written."""
    callbacks: Any = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).stateful_callbacks
    return callbacks[TrainingPhases.__name__]["attributes"]["best_checkpoint"]


def _files(folder: Path) -> dict[str, Path]:
    """Files of a checkpoint by their relative path, hidden ones left out but for the index of sharded weights."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    return {
        name: path
        for name, path in paths.items()
        if name != COMPLETE and (path.name == SHARD_INDEX or not path.name.startswith("."))
    }
