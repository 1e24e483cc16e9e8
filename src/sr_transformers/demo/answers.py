"""What the demo computes, without any page: histories as text, tables of next items, trajectories, titles, figures."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sr_transformers.data.vocabulary import NUM_SPECIAL, decode_items, encode_items
from sr_transformers.public import last_part
from sr_transformers.serving.recommendation import ExplainedRecommendation, ItemId
from sr_transformers.serving.recommender import Recommender

FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".webp")
NUM_CHOICES = 500
_MOMENT = re.compile(r"(.*\S)\s+@\s*(-?\d{1,30})")
Row = list[str | int]


def read_titles(path: str | Path) -> dict[str, str]:
    """Titles by raw item id, both as text.

    Args:
        path: a `.csv`, `.tsv` or `.parquet` file with the columns item_id and title.

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
    missing = {"item_id", "title"} - set(frame.columns)
    if missing:
        raise ValueError(f"{path}: column {', '.join(sorted(missing))} is missing; there are {frame.columns}.")
    frame = frame.select(pl.col("item_id").cast(pl.String), pl.col("title").cast(pl.String).fill_null(""))
    twice = frame.filter(frame["item_id"].is_duplicated())
    if len(twice):
        raise ValueError(f"{path}: item {twice['item_id'][0]!r} has more than one title.")
    return dict(frame.iter_rows())


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


@dataclass
class DemoSession:
    """A model as the page sees it.

    Attributes:
        name: what the page calls it.
        recommender: the model with its vocabulary.
        titles: by raw item id as text; items without one show their id only.
    """

    name: str
    recommender: Recommender
    titles: dict[str, str]

    @classmethod
    def load(
        cls, name_or_path: str | Path, titles: dict[str, str] | None = None, revision: str | None = None
    ) -> "DemoSession":
        """Loads a folder or a Hub id, there a branch, tag or commit."""
        name = last_part(name_or_path)
        recommender = Recommender.from_pretrained(name_or_path, revision=revision)
        return cls(f"{name}@{revision}" if revision else name, recommender, titles or {})

    def choices(self) -> list[tuple[str, str]]:
        """(label, raw id) of the `NUM_CHOICES` items most popular in training, most popular first; of the first ones of
        the vocabulary if it keeps no training counts."""
        tokenizer, popular = self.recommender.tokenizer, self.recommender.popular
        tokens = range(NUM_SPECIAL, len(tokenizer)) if popular is None else popular.tolist()
        return [(self.label(item), str(item)) for item in decode_items(tokenizer, tokens[:NUM_CHOICES])]

    def label(self, item: ItemId) -> str:
        """Title and id of an item."""
        title = self.title(item)
        return f"{title} ({item})" if title else str(item)

    def title(self, item: ItemId) -> str:
        """Title of an item, or nothing."""
        return self.titles.get(str(item), "")

    def unknown(self, history: list[str]) -> list[str]:
        """Items of a history that the model does not know."""
        tokens = encode_items(self.recommender.tokenizer, history)
        return [item for item, token in zip(history, tokens, strict=True) if token < NUM_SPECIAL]

    @property
    def explains(self) -> bool:
        """Whether rows tell what the user's own past did to an item's probability."""
        return self.recommender.scorer.scores_own_past

    def next_items(self, history: list[str], k: int, exclude_seen: bool, times: list[int] | None = None) -> list[Row]:
        """Rows of place, item, title (if there are titles), probability, reason (if it `explains`).

        A history without any known item gives the most popular items, or none if the vocabulary keeps no training
        counts.
        """
        if self.recommender.popular is None and len(self.unknown(history)) == len(history):
            return []
        found = self.recommender.recommend(
            history, k, exclude_seen, fallback="popularity", times=times, explain=self.explains
        )
        rows: list[Row] = []
        for place, one in enumerate(found, 1):
            title = [self.title(one.item)] if self.titles else []
            reason = [one.reason] if isinstance(one, ExplainedRecommendation) else []
            rows.append([place, str(one.item), *title, _percent(one.probability), *reason])
        return rows

    def trajectory(
        self, history: list[str], steps: int, exclude_seen: bool, times: list[int] | None = None
    ) -> list[Row]:
        """Rows of step, item, and what else `next_items` tells.

        Each time the most likely next item is taken to be the next one, at the moment of the last one. It ends early
        when no item is left.
        """
        history, times = list(history), None if times is None else list(times)
        rows: list[Row] = []
        for step in range(1, steps + 1):
            best = self.next_items(history, 1, exclude_seen, times)
            if not best:
                break
            rows.append([step, *best[0][1:]])
            history.append(str(best[0][1]))
            if times is not None:
                times.append(times[-1])
        return rows


def parse_history(text: str) -> list[str]:
    """Raw item ids from text, one a line: ids may hold spaces and commas.

    Raises:
        ValueError: if there is none.
    """
    history = [line.strip() for line in text.splitlines() if line.strip()]
    if not history:
        raise ValueError("The history is empty: type item ids, one a line, oldest first, or choose an item.")
    return history


def split_moments(lines: list[str]) -> tuple[list[str], list[int]]:
    """Items and their moments, of lines that may end in ` @ ` and a moment, a whole number in the unit of the log.

    An item without one lies in the basket of the item before, and what comes before the first moment in that basket.
    Without any, all of them are one basket.

    Raises:
        ValueError: for a moment before the one above it, or one beyond 64 bits.

    >>> split_moments(["milk @ 5", "bread", "rye @ 9"])
    (['milk', 'bread', 'rye'], [5, 5, 9])
    """
    found = [_MOMENT.fullmatch(line) for line in lines]
    given = [int(one[2]) for one in found if one]
    for above, moment in itertools.pairwise(given):
        if moment < above:
            raise ValueError(f"The moment {moment} stands below {above}, a later one: write the oldest item first.")
    if given and not -(1 << 63) <= given[0] <= given[-1] < 1 << 63:
        raise ValueError("A moment is a whole number of at most 64 bits, in the unit of the log.")
    moments = []
    now = given[0] if given else 0
    for one in found:
        now = int(one[2]) if one else now
        moments.append(now)
    return [one[1] if one else line for one, line in zip(found, lines, strict=True)], moments


def agreement(one: list[Row], two: list[Row]) -> str:
    """How many items two tables of next items share, in words."""
    shared = {row[1] for row in one} & {row[1] for row in two}
    first = "the same" if one and two and one[0][1] == two[0][1] else "different"
    return f"{len(shared)} of {max(len(one), len(two))} items in both lists; {first} first item."


def _percent(probability: float) -> str:
    return "–" if probability != probability else f"{100 * probability:.2f} %"
