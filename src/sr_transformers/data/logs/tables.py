"""Tables in memory as Arrow: polars and pandas frames, Arrow tables, Hugging Face data sets."""

from typing import Any

import datasets
import polars as pl
import pyarrow as pa

_BATCH = 10_000  # rows of an iterable data set at a time


def arrow_table(source: Any) -> pa.Table | None:
    """A table in memory as an Arrow table, rows in their order; None for what is no table.

    A lazy frame is computed, an iterable data set read to its end. A dictionary of one split is that split.

    Raises:
        ValueError: for a dictionary of several splits, columns of several types, or what Arrow does not hold.
    """
    if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        if len(source) != 1:
            names = ", ".join(map(str, source)) or "none"
            one = next(iter(source), "train")
            raise ValueError(
                f"the data set has several splits ({names}), a log is one: pass data[{str(one)!r}] or another, or all "
                "of them with datasets.concatenate_datasets."
            )
        (source,) = source.values()
    if isinstance(source, datasets.Dataset):
        return (source.flatten_indices() if source._indices is not None else source).data.table
    if isinstance(source, datasets.IterableDataset):
        return _read(source)
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if not hasattr(source, "__arrow_c_stream__"):
        return None
    try:
        return source.to_arrow() if isinstance(source, pl.DataFrame) else pa.table(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ValueError(f"log: {_mixed(source) or f'it cannot be made an Arrow table: {error}'}") from error


def _read(rows: datasets.IterableDataset) -> pa.Table:
    try:
        parts = list(rows.with_format("arrow").iter(_BATCH))
        if not parts:
            raise ValueError("log: there are no interactions in it.")
        return pa.concat_tables(parts, promote_options="default")
    except pa.ArrowException as error:
        found = " ".join(str(error).split())
        raise ValueError(
            f"log: the types of its columns change on the way ({found}); give the set features."
        ) from error


def _mixed(frame: Any) -> str | None:
    """The first row of a pandas frame in which a column changes its type."""
    for name in getattr(frame, "columns", ()):
        kinds = [(row, type(value)) for row, value in enumerate(frame[name], 1) if value is not None and value == value]
        for row, kind in kinds:
            if kind is not kinds[0][1]:
                return (
                    f"{name} is {kind.__name__} in row {row} and {kinds[0][1].__name__} before; give the column one "
                    "type, for example with astype(str)."
                )
    return None
