"""Lists for all users of a prepared log, or for some, as one Parquet file: user_id, item_id, rank, score.

The work is done in pieces, each a file of its own in a folder beside the output, so that a killed run goes on after its
last whole piece. What was asked is written there too: pieces of another model, log or request are refused. The output
gets its name when all pieces are in it.
"""

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xxhash
from tqdm.auto import tqdm

from sr_transformers.columns import USER
from sr_transformers.data.prepared import PreparedData
from sr_transformers.locking import only_one
from sr_transformers.lsrm.requests_lsrm import check_count, check_request, moment_of_request
from sr_transformers.messages import shown
from sr_transformers.records import read_json, write_whole
from sr_transformers.serving.recommendation import ItemId
from sr_transformers.serving.recommender import Recommender

_REQUEST = "request.json"
SPLITS = ("validation", "test")


def recommend_all(
    recommender: Recommender,
    data: PreparedData,
    output: str | Path,
    k: int = 10,
    users: Sequence[ItemId] | None = None,
    before: str | None = None,
    exclude_seen: bool | None = None,
    fallback: str = "error",
    candidates: Sequence[ItemId] | None = None,
    exclude: Sequence[ItemId] | None = None,
    query_time: int | None = None,
    piece: int = 4096,
    progress: bool = False,
) -> int:
    """Recommends to the users of a prepared log and writes a Parquet file.

    Args:
        recommender: its items are compared with those of the log by raw id, so it may know others, also such as the
            log's vocabulary lacks.
        data: the log.
        output: the file, which must not exist; its columns are those of `Recommender.recommend_frame`.
        users: their ids, distinct, in the order wanted; None: all, as the log has them.
        before: "test" or "validation": of a history only what comes before that target is read, as evaluation does, and
            users without such a target are left out (with `users` they are refused); None: whole histories.
        k, exclude_seen, fallback, candidates, exclude, query_time: see `Recommender.recommend_batch`; the last three
            hold for everybody. With `before`, a model that is told when it is asked is asked when the target happened;
            without either, when this begins, also for pieces that are made later.
        piece: users at a time, whose lists are kept if the run is killed.
        progress: show a bar.

    Returns:
        How many users have a list.

    Raises:
        FileExistsError: if the output exists.
        BlockingIOError: if another run writes the same output.
        ValueError: for an output that is not called .parquet, users that the log does not have, pieces of another
            request, and as `recommend_batch`, there with the user's id.
    """
    output = Path(output)
    if output.suffix != ".parquet":
        raise ValueError(f"{output} must end in .parquet, as it becomes a Parquet file.")
    if output.exists():
        raise FileExistsError(f"{output} exists; choose another output or remove it.")
    check_request(k, exclude_seen)
    check_count("piece", piece)
    if before is not None and query_time is not None:
        raise ValueError("with before it is asked when the target happened; leave query_time out.")
    rows = _rows(data, users, before)
    parts = output.with_name(f"{output.name}.parts")
    config = recommender.model.config
    of_targets = before is not None and recommender.scorer.query_time
    asked = None if of_targets else moment_of_request(query_time, (), config)
    request = {
        "model": _digest(recommender),
        "data": data.digest,
        "rows": xxhash.xxh128(rows.tobytes()).hexdigest(),
        "k": int(k),
        "before": before,
        "exclude_seen": recommender.exclude_seen if exclude_seen is None else exclude_seen,
        "fallback": fallback,
        "candidates": None if candidates is None else list(map(str, candidates)),
        "exclude": None if exclude is None else list(map(str, exclude)),
        "query_time": asked,
        "now": asked is not None and query_time is None,
        "piece": int(piece),
    }
    options: dict[str, Any] = {"exclude_seen": exclude_seen, "fallback": fallback, "candidates": candidates}
    with only_one(parts):
        if request["now"] and (parts / _REQUEST).exists():  # one moment for all pieces: that of the first
            request["query_time"] = read_json(parts / _REQUEST).get("query_time")
        options |= {"exclude": exclude, "query_time": request["query_time"]}
        _same_request(parts / _REQUEST, request)
        names = [parts / f"{number:06}.parquet" for number in range(max(-(-len(rows) // piece), 1))]
        try:
            with tqdm(
                total=len(rows), desc="recommend", unit="user", disable=None if progress else True, leave=False
            ) as bar:
                for number, name in enumerate(names):
                    some = rows[number * piece : (number + 1) * piece]
                    if not name.exists():
                        _write([_lists(recommender, data, some, k, options, of_targets)], name)
                    bar.update(len(some))
        except BaseException:
            if not names[0].exists():  # nothing to go on from
                (parts / _REQUEST).unlink()
            raise
        _write((pq.read_table(name) for name in names), output)
    shutil.rmtree(parts)
    return len(rows)


def _rows(data: PreparedData, users: Sequence[ItemId] | None, before: str | None) -> np.ndarray:
    """`(M, 2)` int64: history, and how many of its interactions are read."""
    if before is not None and before not in SPLITS:
        raise ValueError(f"before is {before!r}; choose {' or '.join(SPLITS)}, or leave it out for whole histories.")
    rows = np.stack([np.arange(len(data)), data.lengths], axis=1) if before is None else data.targets(before)
    if users is None:
        return rows
    row_of = {str(user): row for row, user in enumerate(data.histories[USER])}
    wanted = [row_of.get(str(user), -1) for user in users]
    unknown = [user for user, row in zip(users, wanted, strict=True) if row < 0]
    if unknown:
        raise ValueError(f"{data.path} does not have {len(unknown)} of the users: {shown(unknown)}.")
    if len(set(wanted)) < len(wanted):
        raise ValueError("some users are asked for twice; give each of them once.")
    place = {int(history): index for index, history in enumerate(rows[:, 0])}
    without = [user for user, row in zip(users, wanted, strict=True) if row not in place]
    if without:
        raise ValueError(f"{len(without)} of the users have no {before} target: {shown(without)}.")
    return rows[[place[row] for row in wanted]]


def _lists(
    recommender: Recommender, data: PreparedData, rows: np.ndarray, k: int, options: dict[str, Any], of_targets: bool
) -> pa.Table:
    """of_targets: it is asked when the interaction after each history happened."""
    who = data.histories.data.table[USER].take(pa.array(rows[:, 0])).to_pylist()
    histories, times = [], []
    for history, stop in rows.tolist():
        histories.append(data.raw_items(history, stop))
        times.append(data.timestamps(history, stop).tolist())
    if options["fallback"] == "error":
        nothing = [user for user, items in zip(who, histories, strict=True) if not len(recommender.encode(items))]
        if nothing:
            raise ValueError(
                f"of {len(nothing)} users the model knows no item, for example user {nothing[0]!r}; recommend what is "
                "popular to them (fallback popularity), or leave them out."
            )
    moments: dict[str, Any] = {"times": times} if recommender.scorer.needs_times else {}
    if of_targets:
        moments["query_time"] = [int(data.timestamps(history, stop + 1, stop)[0]) for history, stop in rows.tolist()]
    table = recommender.recommend_frame(who, histories, k, **{**options, **moments}).to_arrow()
    of_log = data.histories.data.table.schema.field(USER).type
    if not pa.types.is_integer(of_log):
        return table
    # As in the log: of a piece alone nobody knows whether ids beyond 63 bits come.
    return table.set_column(table.schema.get_field_index(USER), USER, table[USER].cast(of_log))


def _same_request(path: Path, request: dict[str, Any]) -> None:
    """Writes what is asked, or compares it with what stands there."""
    if not path.exists():
        write_whole(path, json.dumps(request, indent=2) + "\n")
        return
    found = read_json(path)
    other = [name for name in request if found.get(name) != request[name]]
    if other:
        raise ValueError(
            f"{path.parent} holds the pieces of another request ({', '.join(other)} differ): remove it, or choose "
            "another output."
        )


def _write(tables: Iterable[pa.Table], path: Path) -> None:
    """Writes tables, at least one, one at a time into a file that is whole or not there."""
    part = path.with_name(f".{path.name}.part")
    tables = iter(tables)
    first = next(tables)
    try:
        with pq.ParquetWriter(part, first.schema) as writer:
            for table in itertools.chain([first], tables):
                writer.write_table(table)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _digest(recommender: Recommender) -> str:
    """Of all that lists depend on: the weights, the configuration and the vocabulary."""
    model = recommender.model
    digest = xxhash.xxh128(json.dumps(model.config.to_diff_dict(), sort_keys=True, default=str).encode())
    digest.update(recommender.items_fingerprint.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
