"""Fine-tuning: a checkpoint, carried over to the item vocabulary of another log and trained on there.

The architecture is the checkpoint's; of a recipe's `model` section only the dropout rates apply, and a key that
contradicts the checkpoint is an error. What may change is chosen by `freeze` and `lora_rank`. The result is a standard
run folder: low-rank adapters are merged into the weights they adapt.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL, build_tokenizer, item_list
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.finetuning.adapters import adapt
from sr_transformers.finetuning.vocabulary_transfer import one_type, with_vocabulary
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.identity_lsrm import tokenizer_fingerprint
from sr_transformers.public import last_part
from sr_transformers.records import RunRecord
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.train import train

OLD_ITEMS = ("drop", "keep")
FREEZE = ("nothing", "body", "table")
_DROPOUTS = ("embedding_dropout", "attention_dropout", "residual_dropout")


def finetune(
    name_or_path: str | Path | Checkpoint,
    data: PreparedData | str | Path,
    recipe: Recipe,
    output_dir: str | Path,
    init: str = "nearest",
    old_items: str = "drop",
    freeze: str = "nothing",
    lora_rank: int = 0,
    callbacks: list | None = None,
    attn_implementation: str | None = None,
) -> RunRecord:
    """Trains a checkpoint on a log with another item vocabulary; everything else is as in `training.run.train`.

    Args:
        name_or_path: folder or Hub id of the checkpoint and its vocabulary; a `Checkpoint` for a revision of it.
        data: a prepared log.
        recipe: its `training` section and its dropout rates.
        output_dir: made if missing; an interrupted run goes on if the checkpoint and all settings are the same.
        init: how rows of new items begin, see `finetuning.vocabulary`.
        old_items: "drop": the model names the log's items only. "keep": it goes on to name the items of the
            checkpoint too; they follow the log's items, and rankings run over all of them. An item that occurs in the
            log's held-out part only is unknown to a prepared log, so it counts as unknown here whatever the
            checkpoint knew.
        freeze: "nothing", "body" (only item rows learn) or "table" (item rows stay, new ones too).
        lora_rank: > 0: the matrices of the body stay and get low-rank adapters of this rank (package peft), merged at
            the end. Item rows are trained in full unless the table is frozen: adapters cannot teach new items.

    Raises:
        ValueError: for an unknown choice, a frozen body together with adapters, adapters without the package peft, a
            checkpoint that is no LSRM, a recipe that contradicts its architecture, or old items kept on a part of the
            data.
    """
    for name, value, choices in (("old_items", old_items, OLD_ITEMS), ("freeze", freeze, FREEZE)):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; choose from {', '.join(choices)}.")
    if lora_rank < 0 or (lora_rank and freeze == "body"):
        raise ValueError(
            f"lora_rank is {lora_rank} with freeze {freeze!r}: adapters of rank 1 or more change the body, so it "
            "cannot be frozen; give one of the two."
        )
    data = (data if isinstance(data, PreparedData) else PreparedData(data)).verified()
    checkpoint = name_or_path if isinstance(name_or_path, Checkpoint) else Checkpoint(name_or_path)
    base, tokenizer = checkpoint.model(dtype=torch.float32, device_map="cpu"), checkpoint.tokenizer()
    changes = _config_changes(base.config, recipe, checkpoint.name)
    if old_items == "keep":
        if type(data) is not PreparedData:
            raise ValueError(
                f"old_items is 'keep' with {type(data).__name__}: the vocabulary can be carried on for a whole "
                "prepared log only; choose 'drop', or give the log itself."
            )
        data = DataWithOldItems(data.path, tokenizer)
    seed = recipe.arguments(output_dir).seed
    item_ids = item_list(data.tokenizer)
    model, _, change = with_vocabulary(base, tokenizer, item_ids, init, data, seed, changes)
    callbacks = list(callbacks or [])
    if lora_rank:
        set_seed(seed)
        callbacks.append(adapt(model, lora_rank))
    elif freeze == "body":
        model.requires_grad_(False)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        table.requires_grad_(freeze != "table")
    origin = {
        "model": last_part(checkpoint.source),
        "commit": checkpoint.commit,
        "weights_sha256": weights_sha256(base),
        "init": init,
        "old_items": old_items,
        "freeze": freeze,
        "lora_rank": lora_rank,
        "items": change.as_dict(),
    }
    return train(recipe, data, output_dir, callbacks, attn_implementation, model, origin)


def weights_sha256(model: PreTrainedModel) -> str:
    """Digest of all weights, whatever files they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class DataWithOldItems(PreparedData):
    """A prepared log whose vocabulary goes on with those items of a checkpoint that it lacks; none of them is a target.

    Args:
        path: the prepared folder.
        old: the checkpoint's vocabulary.
    """

    def __init__(self, path: str | Path, old: PreTrainedTokenizerBase):
        super().__init__(path)
        own = item_list(super().tokenizer)
        present = {str(item) for item in own}
        added = [item for item in item_list(old) if str(item) not in present]
        self._num_added = len(added)
        self._tokenizer = build_tokenizer(one_type([*own, *added]), self.item_counts[NUM_SPECIAL:])
        self._fingerprint = tokenizer_fingerprint(self._tokenizer)

    @property
    def vocab_size(self) -> int:
        """V: the log's items, the checkpoint's other items, and special tokens."""
        return super().vocab_size + self._num_added

    @property
    def item_counts(self) -> np.ndarray:  # type: ignore[override]
        """`(V,)` int64, training interactions of every token; 0 for the special and for the added ones."""
        return np.concatenate([super().item_counts, np.zeros(self._num_added, np.int64)])

    @property
    def items_fingerprint(self) -> str:
        """Of the log's items and the checkpoint's other items."""
        return self._fingerprint

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:  # type: ignore[override]
        """The item vocabulary."""
        return self._tokenizer


def _config_changes(config: Any, recipe: Recipe, name: str) -> dict[str, Any]:
    """The recipe's dropout rates, after making sure that the rest of its model section is the checkpoint's."""
    if not isinstance(config, LSRMConfig):
        raise ValueError(f"{name} is a {config.model_type} model; only lsrm checkpoints can be fine-tuned.")
    wanted = recipe.config(config.vocab_size)
    compared = [key for key in recipe.model if key not in _DROPOUTS]
    other = [key for key in compared if _plain(getattr(wanted, key)) != _plain(getattr(config, key))]
    if other:
        shown = ", ".join(f"{key} {getattr(wanted, key)} instead of {getattr(config, key)}" for key in other)
        options = " ".join(f"--{key} {getattr(config, key)}" for key in other)
        raise ValueError(f"recipe {recipe.name} contradicts {name}: {shown}; set {options}.")
    return {key: getattr(wanted, key) for key in _DROPOUTS if key in recipe.model}


def _plain(value: Any) -> Any:
    """A list and a tuple of the same are the same: YAML and JSON have one kind."""
    return list(value) if isinstance(value, tuple) else value
