"""What a checkpoint was trained on, as the record of its run says, and whether its numbers mean anything on a log.

A model that has seen in training what a log holds out ranks it far too well, and nothing in the ranks shows it.
"""

from pathlib import Path
from typing import Any

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.splits import TEMPORAL
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.weights import read_json
from sr_transformers.records import RUN_FILE

# Counts that no split changes: logs that share all of them are the same interactions.
_OF_THE_LOG = ("users", "interactions", "items", "first", "last", "repeat_share")


def run_of(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The run.json beside a checkpoint, or in the folder of the run of which it is a step; None without one of ours."""
    file = checkpoint.file(RUN_FILE)
    folder = Path(checkpoint.source)
    if file is None and folder.is_dir() and folder.name.startswith("checkpoint-"):
        above = folder.resolve().parent / RUN_FILE
        file = above if above.is_file() else None
    content = read_json(file) if file is not None else {}
    return content if "data" in content else None


def check_origin(checkpoint: Checkpoint, data: PreparedData) -> dict[str, Any] | None:
    """Refuses a checkpoint that was trained on another split of the same interactions.

    Returns:
        Of a checkpoint that was trained on other interactions `data` (name of the log), `split` and `interactions` of
        that; None of one that was trained on this log, or if nothing says on what.

    Raises:
        ValueError: naming both splits.
    """
    run = run_of(checkpoint)
    if run is None:
        return None
    there, here = run["data"], data.manifest
    counts, same = there.get("counts", {}), there.get("interactions_fingerprint") == here["interactions_fingerprint"]
    rows = same or all(counts.get(key) == here["counts"].get(key) for key in _OF_THE_LOG)
    if rows and split_of(there) != split_of(here):
        raise ValueError(
            f"{checkpoint.name} was trained on the split {told_split(there)} of these interactions, and {data.path} "
            f"has {told_split(here)}: its training may have seen what is held out here. Use the folder it was trained "
            "on, or train on this one."
        )
    if same:
        return None
    return {"data": there["source"]["name"], "split": there["split"], "interactions": counts.get("interactions")}


def split_of(manifest: dict[str, Any]) -> tuple[Any, ...]:
    """The split and what it depends on: of one by time the moments, however they were given."""
    if manifest.get("split") == TEMPORAL:
        return TEMPORAL, *(manifest.get("counts", {}).get(key) for key in ("validation_from", "test_from"))
    return manifest.get("split"), manifest.get("split_parameters")


def told_split(manifest: dict[str, Any]) -> str:
    """A split and its parameters for people."""
    parameters = manifest.get("split_parameters") or {}
    return f"{manifest['split']}{f' {parameters}' if parameters else ''}"
