"""A log whose truth is known: users sampled from a trained checkpoint, the teacher.

Nothing that learns from such a log can reach a lower loss than the teacher's own on the same targets (up to the noise
of finitely many), so a fitted floor E has a number to be compared with, and data are as many as one likes. Lengths are
drawn from the lengths of the log that the teacher learned, up to its window, so that its whole past is in view
everywhere; first items from that log's first items; every other item from the teacher's distribution over all items.
A teacher with `history` reads that of the user so far, and one that reads moments those that are written: 0, 1, 2, ...
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel, StaticCache

from sr_transformers.columns import ITEM, TIMESTAMP, USER
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.staging import staged
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.model_scorer import check_vocabulary
from sr_transformers.lsrm.own_items_lsrm import pasts_of_rows
from sr_transformers.records import write_whole

LOG_FILE = "log.parquet"
SAMPLED_FILE = "sampled.json"
_USERS = 512  # sampled at a time
_TESTED = 3  # interactions of a user whose last one is a target of leave-one-out


@dataclasses.dataclass
class Sampled:
    """What was sampled.

    Attributes:
        users, interactions: how many.
        loss: nats per interaction after the first: the mean of -log p(item) under the teacher.
        last_loss: nats, of the last item of every user of three or more: the floor of leave-one-out test losses, for
            which shorter users have no target.
        last_loss_error: its standard error.
    """

    users: int
    interactions: int
    loss: float
    last_loss: float
    last_loss_error: float


def sample_log(
    model: PreTrainedModel,
    data: PreparedData,
    interactions: int,
    output: str | Path,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Sampled:
    """Writes a folder with `log.parquet`: user_id (from 0 on), item_id (the log's own ids), timestamp (0, 1, 2, ...),
    and with `sampled.json`, what is returned.

    Args:
        model: the teacher; its tokens are those of `data`.
        data: the prepared log that it learned, for lengths and first items.
        interactions: how many to sample; the last user may bring a few more.
        output: a folder, made by this call.

    Raises:
        ValueError: if the model has another vocabulary or is told when it is asked (`query_time`), or fewer than 2
            interactions are asked for.
        FileExistsError: if `output` holds something.
    """
    check_vocabulary("the teacher", model.config, data)
    if getattr(model.config, "query_time", False):
        raise ValueError(
            "the teacher is told when it is asked (query_time), and users who are sampled have no such moments; sample "
            "from a model that is not."
        )
    if interactions < 2:
        raise ValueError(f"interactions is {interactions}; a user has at least 2.")
    rng = np.random.default_rng(seed)
    lengths = _lengths(data, interactions, model.config.max_position_embeddings, rng)
    if lengths[0] < _TESTED:
        raise ValueError(
            f"no user of {_TESTED} interactions came out of the lengths of {data.path}: a log of shorter ones has no "
            "test targets, and so no floor. Sample more, or from a log of longer histories."
        )
    users = rng.permutation(len(lengths))  # batches are of similar lengths, ids are not in the order of lengths
    firsts = np.array([data.items(history, 1)[0] for history in np.flatnonzero(data.lengths > 0).tolist()], np.int64)
    firsts = firsts[firsts >= NUM_SPECIAL]
    generator = torch.Generator().manual_seed(seed)
    losses, lasts = [], []
    with staged(Path(output)) as folder:
        writer = None
        try:
            for first in range(0, len(lengths), _USERS):
                batch = lengths[first : first + _USERS]
                tokens, nats = _histories(model, batch, rng.choice(firsts, len(batch)), generator)
                inside = np.arange(tokens.shape[1]) < batch[:, None]
                losses.append(nats[inside[:, 1:]])
                tested = np.flatnonzero(batch >= _TESTED)
                lasts.append(nats[tested, batch[tested] - 2])
                table = _table(users[first : first + _USERS], tokens, inside, data)
                writer = writer or pq.ParquetWriter(folder / LOG_FILE, table.schema, compression="zstd")
                writer.write_table(table)
                done = first + len(batch)
                if done % (_USERS * 50) < _USERS:
                    say(f"{done:,} of {len(lengths):,} users")
        finally:
            if writer is not None:
                writer.close()
        last = np.concatenate(lasts)
        found = Sampled(
            len(lengths),
            int(lengths.sum()),
            float(np.concatenate(losses).mean()),
            float(last.mean()),
            float(last.std(ddof=1) / np.sqrt(len(last))) if len(last) > 1 else float("nan"),
        )
        write_whole(folder / SAMPLED_FILE, json.dumps(dataclasses.asdict(found), indent=2) + "\n")
    return found


def _lengths(data: PreparedData, interactions: int, window: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths of as many users as the interactions need, the longest first."""
    pool = np.minimum(data.lengths[data.lengths > 1], window)
    if not len(pool):
        raise ValueError(f"{data.path} has no history of two interactions to take a length from.")
    drawn = rng.choice(pool, int(interactions / pool.mean() * 1.1) + 100)
    while drawn.sum() < interactions:
        drawn = np.concatenate([drawn, rng.choice(pool, len(drawn))])
    return np.sort(drawn[: int(np.searchsorted(drawn.cumsum(), interactions)) + 1])[::-1]


@torch.inference_mode()
def _histories(
    model: PreTrainedModel, lengths: np.ndarray, firsts: np.ndarray, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`(B, T)` tokens and `(B, T - 1)` nats of each after the first; beyond a length they mean nothing."""
    model.eval()
    cache = StaticCache(config=model.config, max_cache_len=int(lengths.max()))  # one that grows is copied at each step
    tokens = torch.empty(len(lengths), int(lengths.max()), dtype=torch.int64)
    nats = torch.empty(len(lengths), tokens.shape[1] - 1)
    tokens[:, 0] = torch.from_numpy(firsts)
    for step in range(tokens.shape[1] - 1):
        last = tokens[:, step : step + 1].to(model.device)
        past = _past(model, tokens[:, : step + 1].to(model.device))
        answer = model(last, past_key_values=cache, use_cache=True, **past)
        scores = answer.logits[:, -1].float().cpu()
        scores[:, :NUM_SPECIAL] = -torch.inf
        shares = scores.softmax(-1)
        # The inverse of the distribution function: one random number a user.
        steps = shares.cumsum(-1)
        chosen = torch.searchsorted(steps, torch.rand(len(steps), 1, generator=generator) * steps[:, -1:], right=True)
        chosen = chosen.clamp_(NUM_SPECIAL, scores.shape[1] - 1)
        tokens[:, step + 1] = chosen[:, 0]
        nats[:, step] = -shares.gather(1, chosen)[:, 0].log()
    return tokens.numpy(), nats.numpy().astype(np.float64)


def _past(model: Any, tokens: torch.Tensor) -> dict[str, Any]:
    """What a teacher that `reads_past` reads beside the last of `(B, L)` tokens; the others lie in its cache."""
    config = model.config
    if not getattr(config, "reads_past", False):
        return {}
    real = torch.ones_like(tokens, dtype=torch.bool)
    times = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) if config.needs_times else None
    found = pasts_of_rows(tokens, real, 1, times=times).inputs(config, (len(tokens), 1), model.half_lives)
    return found | ({"moments": times} if config.attention_time else {})


def _table(users: np.ndarray, tokens: np.ndarray, inside: np.ndarray, data: PreparedData) -> pa.Table:
    rows, places = np.nonzero(inside)
    return pa.table(
        {
            USER: pa.array(users[rows].astype(np.int64)),
            ITEM: data.item_ids.take(pa.array(tokens[rows, places] - NUM_SPECIAL)),
            TIMESTAMP: pa.array(places.astype(np.int64)),
        }
    )
