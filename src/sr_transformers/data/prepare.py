"""From a raw log to a prepared folder (`data.histories` describes it): the first step of everything."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from sr_transformers import __version__
from sr_transformers.columns import DOMAIN, ITEM, TIMESTAMP, USER
from sr_transformers.data import interactions, splits
from sr_transformers.data.histories import FORMAT, MANIFEST, PreparedData
from sr_transformers.data.sources import EMBEDDED, read_log, select_columns
from sr_transformers.data.vocabulary import NUM_SPECIAL, UNK_ID, build_tokenizer

MAX_DOMAINS = 2**15 - 1


def prepare(
    source: str | Path | pl.DataFrame,
    output: str | Path,
    columns: dict[str, str] | None = None,
    split: str = splits.LEAVE_ONE_OUT,
    min_interactions: int = 1,
    validation_from: int | None = None,
    test_from: int | None = None,
    min_trajectory_length: int | None = None,
    unseen_share: float | None = None,
    split_seed: int | None = None,
) -> PreparedData:
    """Turns a log into histories, targets and a vocabulary.

    Args:
        source: a CSV or Parquet file, an embedded set, or a frame with user_id, item_id, timestamp and perhaps
            domain.
        output: folder to make; it must not exist or be empty.
        columns: the source's column names by ours.
        split: "leave_one_out", "temporal" or "paper".
        min_interactions: keep users and items with at least so many interactions, to a fixpoint (k-core).
        validation_from, test_from: moments of the temporal split, in the log's unit of time (see
            `interactions.clean`).
        min_trajectory_length, unseen_share, split_seed: of the paper's split; None: 15, 0.2 and 0 (see `splits.paper`).

    Returns:
        The folder, opened.

    Raises:
        FileExistsError: if `output` has something in it.
        ValueError: for a log that is not sound, an unknown split, options of another split, or a split that leaves no
            test target.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not an empty folder; choose another output or remove it.")
    if split not in splits.SPLITS:
        raise ValueError(f"split {split!r} is not known; choose from {', '.join(splits.SPLITS)}.")
    if split != splits.TEMPORAL and (validation_from, test_from) != (None, None):
        raise ValueError("validation_from and test_from belong to split='temporal'.")
    of_paper: dict[str, Any] = {
        "min_trajectory_length": min_trajectory_length, "unseen_share": unseen_share, "seed": split_seed
    }  # fmt: skip
    if split != splits.PAPER and set(of_paper.values()) != {None}:
        raise ValueError("min_trajectory_length, unseen_share and split_seed belong to split='paper'.")
    of_paper = {**splits.PAPER_DEFAULTS, **{key: value for key, value in of_paper.items() if value is not None}}
    name = "log" if isinstance(source, pl.DataFrame) else str(source)
    raw = select_columns(source, name, columns) if isinstance(source, pl.DataFrame) else read_log(source, columns)
    log = interactions.clean(raw, name)
    if min_interactions > 1:
        log = interactions.k_core(log, min_interactions)

    users = log.group_by(USER, maintain_order=True).len()
    lengths = users["len"].to_numpy().astype(np.int64)
    if split == splits.LEAVE_ONE_OUT:
        cut = splits.leave_one_out(lengths)
    elif split == splits.PAPER:
        cut = splits.paper(lengths, users[USER].to_list(), **of_paper)
    else:
        cut = splits.temporal(lengths, log[TIMESTAMP].to_numpy(), validation_from, test_from)
    if len(cut.test) == 0:
        raise ValueError(f"{name}: the {split} split leaves no test target ({len(users)} users, {len(log)} rows).")

    ends = np.cumsum(lengths)
    place = np.arange(len(log)) - np.repeat(ends - lengths, lengths)
    in_training = place < np.repeat(cut.train_length, lengths)
    items = (
        log.filter(pl.Series(in_training)).group_by(ITEM).agg(pl.len().alias("train_count"))
        .sort("train_count", ITEM, descending=[True, False])
    )  # fmt: skip
    tokens = items.select(ITEM).with_row_index("token", offset=NUM_SPECIAL)
    joined = log.join(tokens, on=ITEM, how="left", maintain_order="left")
    encoded = joined["token"].fill_null(UNK_ID).cast(pl.Int32).to_numpy()

    domains, codes = _encode_domains(log, name)
    counts = _counts(raw, log, users, items, cut, encoded, ends - lengths)
    manifest = {
        "format": FORMAT,
        "source": _describe_source(source),
        "columns": columns or {},
        "min_interactions": min_interactions,
        "split": split,
        **({"split_parameters": of_paper} if split == splits.PAPER else {}),
        "leaks": splits.LEAKS[split],
        **({"domains": domains} if domains else {}),
        "counts": counts,
        "versions": {"sr_transformers": __version__, "polars": pl.__version__, "pyarrow": pa.__version__},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    # Everything or nothing: the folder gets its name when all of it is written.
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32 if len(log) < 2**31 else np.int64))
        lists = pa.ListArray if len(log) < 2**31 else pa.LargeListArray
        histories = pa.table(
            {
                USER: users[USER].to_arrow(),
                "item_ids": lists.from_arrays(offsets, pa.array(encoded)),
                "timestamps": lists.from_arrays(offsets, pa.array(log[TIMESTAMP].to_numpy())),
                **({"domains": lists.from_arrays(offsets, pa.array(codes))} if domains else {}),
                "train_length": pa.array(cut.train_length.astype(np.int32)),
            }
        )
        _write_arrow(histories, staging / "histories.arrow")
        for part in ("validation", "test"):
            rows = getattr(cut, part)
            table = pa.table({"history": pa.array(rows[:, 0]), "position": pa.array(rows[:, 1].astype(np.int32))})
            _write_arrow(table, staging / f"{part}.arrow")
        items.rename({ITEM: "item_id"}).write_parquet(staging / "items.parquet")
        build_tokenizer(items[ITEM].to_list()).save_pretrained(staging / "tokenizer")
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if output.exists():
            output.rmdir()
        os.chmod(staging, 0o755)
        os.rename(staging, output)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return PreparedData(output)


def _write_arrow(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def _encode_domains(log: pl.DataFrame, name: str) -> tuple[list[str], np.ndarray]:
    """Names of the domains in sorted order, and `(rows,)` int16 places in that list; nothing if there is no domain."""
    if DOMAIN not in log.columns:
        return [], np.zeros(0, np.int16)
    names = log[DOMAIN].unique().sort()
    if len(names) > MAX_DOMAINS:
        raise ValueError(f"{name}: {len(names)} domains, at most {MAX_DOMAINS}; is {DOMAIN} the right column?")
    codes = log[DOMAIN].replace_strict(names, pl.int_range(len(names), eager=True), return_dtype=pl.Int16)
    return names.cast(pl.String).to_list(), codes.to_numpy()


def _counts(
    raw: pl.DataFrame,
    log: pl.DataFrame,
    users: pl.DataFrame,
    items: pl.DataFrame,
    cut: splits.Split,
    encoded: np.ndarray,
    starts: np.ndarray,
) -> dict[str, Any]:
    """What the manifest reports: sizes, shares, and everything that was left out or cannot be predicted."""
    tied, repeated = log.select(
        (pl.col(TIMESTAMP) == pl.col(TIMESTAMP).shift(1).over(USER)).fill_null(False).mean().alias("tied"),
        (pl.int_range(pl.len()).over(USER, ITEM) > 0).mean().alias("repeated"),
    ).row(0)
    unknown = {
        part: int((encoded[starts[rows[:, 0]] + rows[:, 1]] == UNK_ID).sum())
        for part, rows in (("validation", cut.validation), ("test", cut.test))
    }
    return {
        "rows_read": len(raw),
        "rows_left_out_by_min_interactions": len(raw) - len(log),
        "users": len(users),
        "items": log[ITEM].n_unique(),
        "interactions": len(log),
        "train_interactions": int(cut.train_length.sum()),
        "items_in_vocabulary": len(items),
        "mean_length": len(log) / len(users),
        "max_length": int(users["len"].max()),  # type: ignore[arg-type]
        "repeat_share": repeated,
        "tied_share": tied,
        "first": int(log[TIMESTAMP].min()),  # type: ignore[arg-type]
        "last": int(log[TIMESTAMP].max()),  # type: ignore[arg-type]
        "validation_targets": len(cut.validation),
        "test_targets": len(cut.test),
        "validation_targets_outside_vocabulary": unknown["validation"],
        "test_targets_outside_vocabulary": unknown["test"],
        **cut.notes,
    }


def _describe_source(source: str | Path | pl.DataFrame) -> dict[str, Any]:
    if isinstance(source, pl.DataFrame):
        return {"name": "frame"}
    if str(source) in EMBEDDED:
        return {"name": str(source)}
    with open(source, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": Path(source).name, "sha256": digest, "bytes": Path(source).stat().st_size}
