"""What the page shows of answers, as HTML: cards, lists with bars, messages.

Nothing but text comes out of any id, title or name, whatever it holds; no title or id is a formula to a spreadsheet
that it is copied into.

Colours are in style.css. None of them says anything alone: whatever is coloured has a word beside it too.
"""

import html
import math
from collections.abc import Sequence

from sr_transformers.demo.answers import DemoSession, Shown, percent
from sr_transformers.demo.files import Title
from sr_transformers.public import harmless_cell

SHOWN_CARDS = 12  # of a history; its latest items
SHOWN_UNKNOWN = 5  # ids that a message names


def message(errors: Sequence[str], notes: Sequence[str] = ()) -> str:
    """What is wrong with a field, to be read out at once, and what is to be known of it."""
    parts = [f'<p class="sr-error" role="alert">{text(one)}</p>' for one in errors]
    return "".join([*parts, *(f'<p class="sr-note" role="status">{text(one)}</p>' for one in notes)])


def history_cards(history: Sequence[str], session: DemoSession, unknown: Sequence[str], words: str) -> str:
    """The latest items of a history as a row of cards, the oldest first."""
    shown = history[-SHOWN_CARDS:]
    earlier = len(history) - len(shown)
    cards = []
    for item in shown:
        marks = ['<span class="sr-mark sr-only-here">unknown to the model</span>'] if item in set(unknown) else []
        cards.append(f'<li class="sr-card">{_named(item, session.title(item))}{_marks(marks)}</li>')
    more = f'<p class="sr-note">{earlier:,} earlier items are not drawn.</p>' if earlier else ""
    head = f'<p class="sr-words">{text(words)}</p>' if words else ""
    return f'<h2>History</h2>{head}{more}<ol class="sr-cards" aria-label="Latest items">{"".join(cards)}</ol>'


def next_lists(
    sessions: Sequence[DemoSession], lists: Sequence[Sequence[Shown]], target: str | None, places: Sequence[str],
    words: str,
) -> str:  # fmt: skip
    """The next items of each model, the lists side by side.

    Args:
        target: raw id of what came next, if it is known.
        places: where it stands for each model, in words; empty if it is not known.
        words: what the lists have in common.
    """
    most = max((one.probability for found in lists for one in found if one.probability > 0), default=1.0)
    columns = []
    for index, (session, found) in enumerate(zip(sessions, lists, strict=True)):
        others = {one.item: one.place for other in range(len(lists)) if other != index for one in lists[other]}
        rows = [_row(one, most, target, others if len(lists) > 1 else None) for one in found]
        where = f'<p class="sr-words">{text(places[index])}</p>' if places else ""
        columns.append(_column(index, session.name, where + f'<ol class="sr-list">{"".join(rows)}</ol>', "next"))
    head = f'<p class="sr-words">{text(words)}</p>' if words else ""
    came = _came_next(sessions[0], target) if target is not None else ""
    return f'<h2>Next items</h2>{came}{head}<div class="sr-columns">{"".join(columns)}</div>'


def trajectories(sessions: Sequence[DemoSession], paths: Sequence[Sequence[Shown]]) -> str:
    """The trajectory of each model as a row of cards, one below the other."""
    columns = []
    for index, (session, path) in enumerate(zip(sessions, paths, strict=True)):
        cards = []
        for one in path:
            there = [other[one.place - 1].item for other in paths if other is not path and len(other) >= one.place]
            differs = len(paths) > 1 and there != [one.item]
            marks = ['<span class="sr-mark sr-only-here">differs</span>'] if differs else []
            marks += [_had(one.had)] if one.had else []
            kind = " sr-differs" if differs else ""
            chance = f'<span class="sr-percent">{percent(one.probability)}</span>'
            step = f'<span class="sr-place"><span class="sr-hidden">step </span>{one.place}</span>'
            named = _named(one.item, Title(one.title, one.domain))
            cards.append(f'<li class="sr-card{kind}">{step}{named}{chance}{_marks(marks)}</li>')
        columns.append(_column(index, session.name, f'<ol class="sr-cards">{"".join(cards)}</ol>', "steps"))
    words = "Each step takes the most likely item to be the next one, and goes on from there."
    return f'<h2>Trajectory</h2><p class="sr-words">{words}</p>{"".join(columns)}'


def some(items: Sequence[str]) -> str:
    """The first few of items, and how many more there are."""
    different = list(dict.fromkeys(items))
    rest = len(different) - SHOWN_UNKNOWN
    return ", ".join(different[:SHOWN_UNKNOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def text(value: str) -> str:
    """Text as HTML shows it.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return html.escape(value)


def _row(one: Shown, most: float, target: str | None, others: dict[str, int] | None) -> str:
    """An item of a list: place, names, probability, bar, marks.

    Args:
        most: the probability of the longest bar.
        others: places in the other list; None: there is no other.
    """
    marks, kind = [], ""
    if one.item == target:
        marks.append('<span class="sr-mark sr-came">✓ came next</span>')
        kind += " sr-target"
    if one.had:
        marks.append(_had(one.had))
    if others is not None:
        there = others.get(one.item)
        words = "only here" if there is None else f"place {there} there"
        marks.append(f'<span class="sr-mark{" sr-only-here" if there is None else ""}">{words}</span>')
        kind += " sr-differs" if there is None else ""
    reason = f'<span class="sr-reason">{text(one.reason)}</span>' if one.reason else ""
    return (
        f'<li class="sr-row{kind}"><span class="sr-place">{one.place}</span>'
        f"{_named(one.item, Title(one.title, one.domain))}"
        f'<span class="sr-percent">{percent(one.probability)}</span>{_bar(one, most)}{_marks(marks)}{reason}</li>'
    )


def _bar(one: Shown, most: float) -> str:
    """The probability as a bar: first what it would be without the user's own past, then what that adds, striped."""
    if math.isnan(one.probability):
        return ""
    own = 0.0 if math.isnan(one.without_past) else max(one.probability - one.without_past, 0.0)
    parts = f'<span class="sr-fill" style="width:{100 * (one.probability - own) / most:.2f}%"></span>'
    if own > 0:
        parts += f'<span class="sr-fill sr-own" style="width:{100 * own / most:.2f}%"></span>'
    return f'<span class="sr-bar" aria-hidden="true">{parts}</span>'


def _named(item: str, title: Title) -> str:
    """Title, department and id of an item; the id alone where it has no title."""
    if not title.title:
        small, large = title.domain, item
    else:
        small, large = " · ".join(filter(None, (title.domain, item))), title.title
    below = f'<span class="sr-small">{_safe(small)}</span>' if small else ""
    return f'<span class="sr-item"><span class="sr-title">{_safe(large)}</span>{below}</span>'


def _safe(value: str) -> str:
    return text(str(harmless_cell(value)))


def _had(times: int) -> str:
    return f'<span class="sr-mark sr-had">{times:,}× in the history</span>'


def _marks(marks: Sequence[str]) -> str:
    return f'<span class="sr-marks">{"".join(marks)}</span>' if marks else ""


def _came_next(session: DemoSession, target: str) -> str:
    return f'<p class="sr-words"><strong>What came next:</strong> {_safe(session.label(target))}</p>'


def _column(index: int, name: str, inside: str, kind: str) -> str:
    """What belongs to one model, under its name."""
    label = f"sr-{kind}-name-{index}"
    return (
        f'<section class="sr-model sr-model-{index}" id="{kind}-{index}" aria-labelledby="{label}">'
        f'<h3 id="{label}">{text(name)}</h3>{inside}</section>'
    )
