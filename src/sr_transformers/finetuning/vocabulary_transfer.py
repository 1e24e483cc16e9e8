"""Gives a trained model another item vocabulary: the item table is taken apart and put together row by row.

Items are matched by raw id, as text. Known items and the special tokens keep their rows bit for bit, and everything
that is not an item table keeps its weights; nothing is trained here. `add_items` appends new items to a vocabulary,
`with_vocabulary` makes exactly the one that is asked for (items that it does not name are dropped).

A new item's row, by `init`:
    mean      the mean of all old item rows, plus normal noise of 1 % of their standard deviation: equal rows would
              tie, and ties count against the model
    random    normal with the configuration's initializer_range, as in a fresh model
    nearest   the mean of the rows of the (at most 10) known items nearest to it in a log's training data, weighted by
              nearness: the cosine of co-occurrence counts, two interactions co-occurring when the same user has them
              at most 5 apart. Items that meet no known item get "mean", and are counted.
"""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import (
    NUM_SPECIAL,
    PAD_ID,
    UNK_ID,
    build_tokenizer,
    item_counts,
    item_list,
    set_item_counts,
)
from sr_transformers.finetuning.counts_transfer import moved_counts, sizes_of
from sr_transformers.lsrm.identity_lsrm import check_same_items, tokenizer_fingerprint
from sr_transformers.lsrm.scoring_lsrm import check_tokenizer

INITS = ("mean", "random", "nearest")
NUM_NEIGHBOURS = 10
MAX_DISTANCE = 5
MEAN_NOISE = 0.01
_USERS_AT_A_TIME = 1 << 15


@dataclass(frozen=True)
class VocabularyChange:
    """What became of the items.

    Attributes:
        known: items of the new vocabulary that the old one had; their rows are the old ones.
        new: items that the old vocabulary lacked, by init in `by_nearest`, `by_mean` and `by_random`.
        dropped: items of the old vocabulary that the new one lacks.
    """

    known: int
    new: int
    dropped: int
    by_nearest: int = 0
    by_mean: int = 0
    by_random: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return dataclasses.asdict(self)


def add_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    item_ids: Sequence[str] | Sequence[int],
    init: str = "mean",
    data: PreparedData | None = None,
    seed: int = 42,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, VocabularyChange]:
    """A copy of a model that also knows `item_ids`; items keep their tokens, new ones follow. See `with_vocabulary`.

    Raises:
        ValueError: if the vocabulary has one of the items already, or as `with_vocabulary`.
    """
    old = item_list(tokenizer)
    present = {str(item) for item in old}
    for item in item_ids:
        if str(item) in present:
            raise ValueError(f"item {item!r} is in the vocabulary already; pass new items only.")
    return with_vocabulary(model, tokenizer, [*old, *item_ids], init, data, seed)


def with_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    item_ids: Sequence[str | int],
    init: str = "mean",
    data: PreparedData | None = None,
    seed: int = 42,
    config_changes: dict[str, Any] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, VocabularyChange]:
    """A copy of a model with exactly this item vocabulary, and the tokenizer that goes with it.

    Args:
        model: an `LSRMForCausalLM`; it is left as it is. A head that is not tied to the item table gets rows in the
            same way as the table.
        tokenizer: its vocabulary.
        item_ids: the new vocabulary's raw ids in the order of their tokens. Training counts that `tokenizer` knows go
            on with their items, and so does what `mix` of the model's history has counted; new items have none.
        init: "mean", "random" or "nearest"; the head of this file defines them.
        data: the log that "nearest" takes co-occurrence from; only its training data are read.
        seed: of the noise and of random rows.
        config_changes: keys of the configuration that the copy has otherwise, for example dropout rates; they must not
            change the shape of a weight.

    Raises:
        ValueError: for an unknown init, "nearest" without data, a model and a tokenizer that do not belong together, or
            ids given twice.
    """
    if init not in INITS:
        raise ValueError(f"init is {init!r}; choose from {', '.join(INITS)}.")
    if init == "nearest" and data is None:
        raise ValueError("init 'nearest' needs data: the log in which new items meet known ones.")
    old_items = [str(item) for item in item_list(tokenizer)]
    num_old = len(old_items) + NUM_SPECIAL
    check_tokenizer(num_old, model.config)
    check_same_items(model.config, tokenizer_fingerprint(tokenizer), "the vocabulary")
    new_tokenizer = build_tokenizer(one_type(item_ids))
    new_tokenizer.model_max_length = tokenizer.model_max_length
    old_token = {item: token for token, item in enumerate(old_items, NUM_SPECIAL)}
    # Where each row comes from; -1: nowhere. The special tokens are the same in every vocabulary.
    source = torch.tensor([PAD_ID, UNK_ID, *(old_token.get(str(item), -1) for item in item_ids)])
    counts = item_counts(tokenizer)
    if counts is not None:
        places = source[NUM_SPECIAL:].numpy() - NUM_SPECIAL
        set_item_counts(new_tokenizer, np.where(places >= 0, counts[places], 0))
    weights, uncovered = None, 0
    if init == "nearest" and data is not None:
        weights = nearest_weights(data, [str(item) for item in item_ids], source.numpy())
        uncovered = int((source < 0).sum()) - int((np.diff(weights.indptr) > 0).sum())
    generator = torch.Generator().manual_seed(seed)

    def rows_of(table: torch.Tensor) -> torch.Tensor:
        return _new_rows(
            table[:num_old].detach().cpu(), source, init, weights, model.config.initializer_range, generator
        )

    config = copy.deepcopy(model.config)
    state = dict(model.state_dict())
    counts_of_items = moved_counts(state, source)
    own = {"vocab_size": len(source), "num_items": None, "items_fingerprint": tokenizer_fingerprint(new_tokenizer)}
    own |= sizes_of(counts_of_items)
    for name, value in {**(config_changes or {}), **own}.items():
        setattr(config, name, value)
    names = {name for name, _ in model.named_parameters() if name.endswith(("embed_tokens.weight", "lm_head.weight"))}
    tables = {name: rows_of(state[name]) for name in sorted(names)}
    if config.tie_word_embeddings:
        (table,) = tables.values()
        tables = {"model.embed_tokens.weight": table, "lm_head.weight": table}
    grown = type(model)._from_config(config, dtype=model.dtype)
    tables |= counts_of_items
    if (by_item := "history.item_table.weight") in state:  # new ones begin at 0
        tables[by_item] = state[by_item].cpu()[source.clamp(min=0)] * (source >= 0)[:, None]
    grown.load_state_dict({**state, **tables})
    grown.generation_config = copy.deepcopy(model.generation_config)
    if grown.generation_config.suppress_tokens:  # what only filled up the old table may be an item now
        grown.generation_config.suppress_tokens = list(range(NUM_SPECIAL))
    grown.to(model.device)

    known = int((source >= NUM_SPECIAL).sum())
    new = int((source < 0).sum())
    made = {
        "mean": {"by_mean": new},
        "random": {"by_random": new},
        "nearest": {"by_nearest": new - uncovered, "by_mean": uncovered},
    }[init]
    return grown, new_tokenizer, VocabularyChange(known, new, len(old_items) - known, **made)


def nearest_weights(data: PreparedData, item_ids: Sequence[str], source: np.ndarray) -> scipy.sparse.csr_matrix:
    """How much of each known item's row goes into each new item's row.

    Args:
        data: log whose training data are read; its vocabulary need not be the new one.
        item_ids: raw ids of the new vocabulary as text, from token `NUM_SPECIAL` on.
        source: `(V,)` int64, old token of every new token, -1 for new items.

    Returns:
        `(V, V)`, rows of new items sum to 1 over at most `NUM_NEIGHBOURS` known ones, all other rows are empty.
    """
    place = {item: token for token, item in enumerate(item_ids, NUM_SPECIAL)}
    translate = np.array([-1, -1, *(place.get(str(item), -1) for item in item_list(data.tokenizer))])
    size = len(source)
    met = scipy.sparse.csr_matrix((size, size), dtype=np.float64)
    counts = np.zeros(size)
    for first in range(0, len(data), _USERS_AT_A_TIME):
        users = range(first, min(first + _USERS_AT_A_TIME, len(data)))
        histories = [data.train_items(user, int(data.train_lengths[user])) for user in users]
        tokens = translate[np.concatenate(histories)]
        user = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        counts += np.bincount(tokens[tokens >= 0], minlength=size)
        for distance in range(1, MAX_DISTANCE + 1):
            left, right = tokens[:-distance], tokens[distance:]
            kept = (user[:-distance] == user[distance:]) & (left >= 0) & (right >= 0)
            ones = np.ones(int(kept.sum()))
            met += scipy.sparse.csr_matrix((ones, (left[kept], right[kept])), shape=(size, size))
    met = met + met.T
    is_known = source >= NUM_SPECIAL
    root = scipy.sparse.diags_array(1 / np.sqrt(np.maximum(counts, 1)))
    cosine = (root @ met @ root).tocsr()
    cosine = (scipy.sparse.diags_array((source < 0).astype(float)) @ cosine).tocsr()
    cosine = (cosine @ scipy.sparse.diags_array(is_known.astype(float))).tocsr()
    cosine.eliminate_zeros()
    return _keep_best(cosine, counts)


def _keep_best(matrix: scipy.sparse.csr_matrix, counts: np.ndarray) -> scipy.sparse.csr_matrix:
    """The `NUM_NEIGHBOURS` largest entries of each row (ties: the more popular item), scaled to sum to 1."""
    rows, columns, values = [], [], []
    for row in np.nonzero(np.diff(matrix.indptr))[0]:
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        indices = matrix.indices[part]
        order = np.lexsort((indices, -counts[indices], -matrix.data[part]))[:NUM_NEIGHBOURS]
        best = matrix.data[part][order]
        rows.append(np.full(len(order), row))
        columns.append(matrix.indices[part][order])
        values.append(best / best.sum())
    if not rows:
        return scipy.sparse.csr_matrix(matrix.shape)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return scipy.sparse.csr_matrix(entries, shape=matrix.shape)


def _new_rows(
    table: torch.Tensor,
    source: torch.Tensor,
    init: str,
    weights: scipy.sparse.csr_matrix | None,
    initializer_range: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """`(V, d)`: the old rows where `source` names one, the others made by `init`."""
    is_new = source < 0
    rows = table[source.clamp(min=0)]
    items = table[NUM_SPECIAL:].float()
    noise = torch.randn(int(is_new.sum()), table.shape[1], generator=generator)
    if init == "random":
        rows[is_new] = (noise * initializer_range).to(table.dtype)
        return rows
    spread = items.std(0, correction=0)
    made = torch.zeros(rows.shape)
    made[is_new] = items.mean(0) + MEAN_NOISE * spread * noise
    if weights is not None:
        near = np.nonzero(np.diff(weights.indptr))[0]
        made[near] = torch.from_numpy(weights[near] @ rows.double().numpy()).float()
    rows[is_new] = made[is_new].to(table.dtype)
    return rows


def one_type(item_ids: Sequence[str | int]) -> list[Any]:
    """All integers, or all as text: a vocabulary has one type of id."""
    if all(isinstance(item, int) for item in item_ids):
        return list(item_ids)
    return [str(item) for item in item_ids]
