"""What the demo computes, without any page: histories as text, next items, trajectories, where two models differ."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sr_transformers.data.vocabulary import NUM_SPECIAL, decode_items, encode_items
from sr_transformers.demo.files import Title
from sr_transformers.public import last_part
from sr_transformers.serving.recommendation import ExplainedRecommendation, ItemId
from sr_transformers.serving.recommender import Recommender

NUM_CHOICES = 500
LOOKED_AT = 1000  # places among which what came next is looked for
_NOTHING = Title("", "")
_MOMENT = re.compile(r"(.*\S)\s+@\s*(-?\d{1,30})")


@dataclass(frozen=True)
class Shown:
    """An item as the page shows it.

    Attributes:
        place: in its list, or its step in a trajectory, from 1 on.
        item: raw id as text.
        title, domain: of the file of titles; may be empty.
        probability: the model's over all items, seen or not; nan where popularity stood in.
        had: how often it is in the history.
        reason: what the user's own past did to the probability, in words; empty for a model that adds nothing to it.
        without_past: the probability without that; nan for such a model.
    """

    place: int
    item: str
    title: str
    domain: str
    probability: float
    had: int = 0
    reason: str = ""
    without_past: float = math.nan


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
    titles: dict[str, Title]

    @classmethod
    def load(
        cls, name_or_path: str | Path, titles: dict[str, Title] | None = None, revision: str | None = None
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
        title = self.title(item).title
        return f"{title} ({item})" if title else str(item)

    def title(self, item: ItemId) -> Title:
        """What an item is called, or nothing."""
        return self.titles.get(str(item), _NOTHING)

    def unknown(self, history: Sequence[str]) -> list[str]:
        """Items of a history that the model does not know."""
        tokens = encode_items(self.recommender.tokenizer, history)
        return [item for item, token in zip(history, tokens, strict=True) if token < NUM_SPECIAL]

    @property
    def explains(self) -> bool:
        """Whether it tells what the user's own past did to an item's probability."""
        return self.recommender.scorer.scores_own_past

    def next_items(
        self, history: Sequence[str], k: int, exclude_seen: bool, times: Sequence[int] | None = None
    ) -> list[Shown]:
        """The k items that most likely come next, best first.

        A history without any known item gives the most popular items, or none if the vocabulary keeps no training
        counts. A model that is told when it is asked is asked at the moment of the last item.
        """
        if self.recommender.popular is None and len(self.unknown(history)) == len(history):
            return []
        found = self.recommender.recommend(
            history,
            k,
            exclude_seen,
            fallback="popularity",
            times=times,
            explain=self.explains,
            query_time=times[-1] if times and self.recommender.scorer.query_time else None,
        )
        had = Counter(history)
        shown = []
        for place, one in enumerate(found, 1):
            item, reason, without = str(one.item), "", math.nan
            if isinstance(one, ExplainedRecommendation) and not math.isnan(one.probability):
                reason = one.reason
                without = one.probability / one.own_factor if one.own_factor else math.nan
            shown.append(Shown(place, item, *self.title(item), one.probability, had[item], reason, without))
        return shown

    def trajectory(
        self, history: Sequence[str], steps: int, exclude_seen: bool, times: Sequence[int] | None = None
    ) -> list[Shown]:
        """Each time the most likely next item is taken to be the next one, at the moment of the last one; `place` is
        the step. It ends early when no item is left."""
        history, times = list(history), None if times is None else list(times)
        shown = []
        for step in range(1, steps + 1):
            best = self.next_items(history, 1, exclude_seen, times)
            if not best:
                break
            shown.append(replace(best[0], place=step))
            history.append(best[0].item)
            if times is not None:
                times.append(times[-1])
        return shown


def where(target: str, found: Sequence[Shown], session: DemoSession, left_out: bool) -> str:
    """Where what came next stands in a list of `LOOKED_AT` next items, in words.

    Args:
        left_out: whether it is in the history, and those items are left out.
    """
    for one in found:
        if one.item == target:
            return f"What came next stands at place {one.place:,}: {percent(one.probability)}."
    if session.unknown([target]):
        return "This model does not know what came next."
    if left_out:
        return "What came next is an item of the history, and those are left out."
    return f"What came next is not among the first {len(found):,}."


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


def write_history(history: Sequence[str], times: Sequence[int] | None) -> str:
    """Text that `parse_history`, and with times `split_moments`, read again: a moment stands where a basket begins.

    >>> write_history(["milk", "bread", "rye"], [5, 5, 9])
    'milk @ 5\\nbread\\nrye @ 9'
    """
    if times is None:
        return "\n".join(history)
    before = [None, *times]
    lines = [
        item if now == last else f"{item} @ {now}" for item, now, last in zip(history, times, before, strict=False)
    ]
    return "\n".join(lines)


def agreement(one: Sequence[Shown], two: Sequence[Shown]) -> str:
    """How many items two lists of next items share, in words."""
    shared = {row.item for row in one} & {row.item for row in two}
    first = "the same" if one and two and one[0].item == two[0].item else "different"
    return f"{len(shared)} of {max(len(one), len(two))} items in both lists; {first} first item."


def percent(probability: float) -> str:
    """A probability as text; a dash for one that is not known."""
    return "–" if math.isnan(probability) else f"{100 * probability:.2f} %"
