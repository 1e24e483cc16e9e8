"""A model becomes the model of a log: what its tokens stand for and how it is ranked are kept in its configuration."""

import numpy as np
import torch
from transformers import PreTrainedModel

from sr_transformers.data.prepared import PreparedData
from sr_transformers.lsrm.identity_lsrm import check_same_items
from sr_transformers.lsrm.scoring_lsrm import item_range
from sr_transformers.training.mixing import mix_counts


def bind(model: PreTrainedModel, data: PreparedData, filter_seen: bool | None) -> None:
    """Writes `items_fingerprint` and `filter_seen` into the configuration of a model that is to be trained on a log.

    Args:
        filter_seen: of the training arguments; None: the log decides.

    Raises:
        ValueError: if the model has another number of tokens or was trained on other items, or if the log's vocabulary
            is not the one that its histories were written with (such a run would end in a folder that nothing loads).
    """
    tokens = item_range(model.config)[1]
    if tokens != data.vocab_size:
        raise ValueError(
            f"the model has {tokens} tokens, the prepared log {data.vocab_size}; "
            "build the model with vocab_size=data.vocab_size."
        )
    try:
        check_same_items(model.config, data.items_fingerprint, str(data.path))
    except ValueError as error:
        raise ValueError(f"{error} To train a model on other items, carry it over with `finetune`.") from error
    _ = data.tokenizer  # opening it compares its items with those of the histories
    model.config.items_fingerprint = data.items_fingerprint
    model.config.filter_seen = data.filters_seen(filter_seen)
    history = getattr(model, "history", None)
    if getattr(model.config, "needs_times", False):
        model.config.time_unit = time_unit(data)
        times = data.manifest["times"]
        model.config.times_in = None if times["millionths"] else times["unit"]
    if history is not None and history.mix is not None:
        tables, window = mix_counts(data, model.config)
        history.mix.set_counts(_tensors(tables), window)


def _tensors(tables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(table) for name, table in tables.items()}


def time_unit(data: PreparedData, users: int = 10_000) -> float:
    """The usual time between two baskets of a user: the median over the training histories of the first so many users,
    in the log's unit of time.

    Raises:
        ValueError: if no user has two moments.
    """
    some = np.flatnonzero(data.train_lengths > 1)[:users].tolist()
    gaps = [np.diff(data.train_times(history, int(data.train_lengths[history]))) for history in some]
    between = np.concatenate([np.zeros(0, np.int64), *gaps])
    between = between[between > 0]
    if not len(between):
        raise ValueError(
            f"no user of {data.path} has interactions at two different moments: leave baskets and clock out of the "
            "model's history, and attention_time false."
        )
    return float(np.median(between))
