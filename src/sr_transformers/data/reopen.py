"""A prepared folder as rows again: what appending and describing begin with."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sr_transformers.columns import ITEM
from sr_transformers.data.prepared import PreparedData, open_stream
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.data.writing import Rows, spool

_COLUMNS = {"item_ids": "item_code", "timestamps": "timestamp", "domains": "domain_code"}


def reopen(data: PreparedData, folder: Path) -> tuple[Rows, pa.Array]:
    """All rows of a prepared folder, and the raw ids of the items by code.

    Codes are the tokens less the special ones; items outside the vocabulary follow, sorted by id.

    Args:
        folder: where the flat files go; the caller removes it.
    """
    table = data.histories.data.table
    names = [name for name in _COLUMNS if name in table.column_names]

    def batches():  # type: ignore[no-untyped-def]
        for batch in table.select(names).to_batches():
            columns = [batch.column(name).flatten() for name in names]
            yield pa.record_batch(columns, names=[_COLUMNS[name] for name in names])

    rows = spool(batches(), data.lengths, folder)
    known = data.item_ids
    items = np.memmap(folder / "item_code", np.int32, "r+")
    items -= NUM_SPECIAL
    outside = open_stream(data.path / "unknown.arrow").data.table
    ids = known
    if len(outside):
        starts = np.cumsum(data.lengths) - data.lengths
        place = starts[outside["history"].to_numpy()] + outside["position"].to_numpy()
        names_outside = outside[ITEM].combine_chunks()
        distinct = names_outside.unique().sort()
        code = pc.index_in(names_outside, distinct).to_numpy()
        items[place] = code + len(known)
        ids = pa.concat_arrays([known, distinct.cast(known.type)])
    items.flush()
    return rows, ids
