"""What the page is given beside checkpoints: titles of items, and the figures of a study."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from sr_transformers.columns import DOMAIN, ITEM

FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".webp")


class Title(NamedTuple):
    """What an item is called, and its department or genre; empty where the file says nothing."""

    title: str
    domain: str


def read_titles(path: str | Path) -> dict[str, Title]:
    """Titles by raw item id as text.

    Args:
        path: a `.csv`, `.tsv` or `.parquet` file with the columns item_id and title, and domain if it likes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another suffix, a file that is not what its suffix says, a missing column, or an item that is
            listed twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of titles.")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise ValueError(f"{path}: titles are read from .csv, .tsv or .parquet; convert it or rename it.")
    try:
        if suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, separator="\t" if suffix == ".tsv" else ",", infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ValueError(
            f"{path} cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}. Write it in UTF-8 with the columns "
            "item_id and title."
        ) from error
    missing = {ITEM, "title"} - set(frame.columns)
    if missing:
        raise ValueError(f"{path}: column {', '.join(sorted(missing))} is missing; there are {frame.columns}.")
    domain = pl.col(DOMAIN) if DOMAIN in frame.columns else pl.lit("").alias(DOMAIN)
    frame = frame.select(pl.col(ITEM), pl.col("title"), domain).cast(pl.String)
    twice = frame.filter(frame[ITEM].is_duplicated())
    if len(twice):
        raise ValueError(f"{path}: item {twice[ITEM][0]!r} has more than one title.")
    return {item: Title(title or "", domain or "") for item, title, domain in frame.iter_rows()}


def find_figures(folder: str | Path) -> list[tuple[str, str]]:
    """(path, caption) of all figures in a folder and below it, in the order of their names.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if it holds no figure, or one that is a link: what it leads to is nobody's figure.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of figures.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FIGURE_SUFFIXES and not path.is_dir())
    links = [path for path in found if path.is_symlink()]
    if links:
        more = f" (and {len(links) - 1} more)" if len(links) > 1 else ""
        raise ValueError(f"{links[0]}{more} is a link; the page follows none: put the figure itself there.")
    if not found:
        raise ValueError(f"{folder} holds no figure ({', '.join(FIGURE_SUFFIXES)}).")
    return [(str(path), path.relative_to(folder).with_suffix("").as_posix()) for path in found]
