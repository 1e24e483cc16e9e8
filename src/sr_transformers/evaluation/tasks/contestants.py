"""Checkpoints as contestants: any `AutoModelForCausalLM` over the item tokens of a prepared log."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.model_scorer import ModelScorer, check_vocabulary
from sr_transformers.evaluation.origin import run_of, split_of, told_split
from sr_transformers.evaluation.tasks.runner import Contestant
from sr_transformers.public import shown_names


def model_contestant(
    name: str, paths: Sequence[str | Path | Checkpoint], data: PreparedData, window: int | None = None
) -> Contestant:
    """A model with its size N, opened from disk only when its turn comes.

    Args:
        paths: folders or Hub ids (a `Checkpoint` for a revision): one model, or the same with several training seeds.
        window: most recent items read; None: all that the model can read.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: for a checkpoint of another vocabulary, one that was trained on another split or log (its run.json
            says so: its training may have seen what this log holds out), one with `query_time`, or checkpoints of
            different sizes.
    """
    sizes, trained, seen = {}, [], []
    opened = [path if isinstance(path, Checkpoint) else Checkpoint(path) for path in paths]
    for checkpoint in opened:
        config = checkpoint.config()
        check_vocabulary(checkpoint.name, config, data)
        if getattr(config, "query_time", False):
            raise ValueError(
                f"{checkpoint.name} is told when the target happens (query_time), and the tasks ask what follows the "
                "last known interaction, whenever that is. Use `evaluate` for it, or a model that is not told."
            )
        seen.append(getattr(config, "filter_seen", None))
        record = run_of(checkpoint)
        if record is not None:
            _check_training(checkpoint.name, record["data"], data)
            trained.append({key: record.get(key) for key in ("command", "seed", "commit")})
        # Shapes without memory; and a file that lacks something is found before others have been evaluated.
        sizes[checkpoint.name] = count_block_parameters(checkpoint.model(device_map="meta"))
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{name}: its checkpoints are of different sizes ({sizes}); give each size a name of its own.")
    facts = {
        "checkpoints": shown_names(list(sizes)),
        "training": trained,
        "num_non_embedding_parameters": next(iter(sizes.values())),
    }
    return Contestant(name, [partial(_open, checkpoint, name, window) for checkpoint in opened], facts, tuple(seen))


def count_block_parameters(model: PreTrainedModel) -> int:
    """N: parameters in matrices, without embeddings, head, biases, norms and what `history` adds to scores."""
    left_out = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    left_out |= {id(one) for name, one in model.named_parameters() if name.startswith("history.")}
    head = model.get_output_embeddings()
    if head is not None:
        left_out.add(id(head.weight))
    return sum(one.numel() for one in model.parameters() if one.ndim == 2 and id(one) not in left_out)


def _open(checkpoint: Checkpoint, name: str, window: int | None) -> Scorer:
    return ModelScorer(checkpoint.model(), window, name, reuse_memory=True)


def _check_training(path: str | Path, trained: dict[str, Any], data: PreparedData) -> None:
    if split_of(trained) != split_of(data.manifest):
        _refuse(path, data, "split", told_split(trained), told_split(data.manifest))
    _refuse_if_different(
        path, data, "min_interactions", trained.get("min_interactions"), data.manifest.get("min_interactions")
    )
    for key in ("users", "interactions", "train_interactions", "items_in_vocabulary"):
        _refuse_if_different(path, data, key, trained["counts"][key], data.manifest["counts"][key])


def _refuse_if_different(path: str | Path, data: PreparedData, what: str, trained: Any, here: Any) -> None:
    if trained != here:
        _refuse(path, data, what, trained, here)


def _refuse(path: str | Path, data: PreparedData, what: str, trained: Any, here: Any) -> None:
    raise ValueError(
        f"{path} was trained on a log with {what} {trained}, {data.path} has {here}: training may have seen what is "
        "held out here. Use the folder it was trained on."
    )
