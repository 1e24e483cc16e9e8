"""What the page draws, read as HTML."""

import math
import re
from html.parser import HTMLParser

import pytest

from sr_transformers.demo import drawing
from sr_transformers.demo.answers import DemoSession, Shown
from sr_transformers.demo.files import Title, read_titles


@pytest.fixture(scope="module")
def session(checkpoints, titles):
    return DemoSession.load(checkpoints[0], read_titles(titles))


class Elements(HTMLParser):
    """Every element, with its classes and the text inside."""

    VOID = ("br", "img", "input")

    def __init__(self, page):
        super().__init__()
        self.found, self._open = [], []
        self.feed(page)
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag, attributes):
        self.found.append({"tag": tag, "text": "", **dict(attributes)})
        if tag not in self.VOID:
            self._open.append(self.found[-1])

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def of(self, name):
        """Those of a class."""
        return [one for one in self.found if name in one.get("class", "").split()]


def shown(*items, **more):
    return [Shown(place, item, "", "", 0.4 / place, **more) for place, item in enumerate(items, 1)]


def widths(page):
    return [float(re.search(r"width:([\d.]+)%", one["style"])[1]) for one in page.of("sr-fill")]


def test_bars_are_as_long_as_probabilities_in_all_lists(session):
    page = Elements(drawing.next_lists([session, session], [shown("a", "b"), shown("c")], None, [], ""))
    assert widths(page) == [100, 50, 100]
    assert [one["text"] for one in page.of("sr-percent")] == ["40.00 %", "20.00 %", "40.00 %"]
    assert all(one["aria-hidden"] == "true" for one in page.of("sr-bar"))


def test_what_the_own_past_adds_is_striped(session):
    found = [
        Shown(1, "a", "", "", 0.4, 3, "4.0 times as likely", 0.1),
        Shown(2, "b", "", "", 0.2, 1, "0.5 times as likely", 0.4),
    ]
    page = Elements(drawing.next_lists([session], [found], None, [], ""))
    assert widths(page) == [25, 75, 50]
    assert [one["class"] for one in page.of("sr-fill")] == ["sr-fill", "sr-fill sr-own", "sr-fill"]
    assert [one["text"] for one in page.of("sr-reason")] == ["4.0 times as likely", "0.5 times as likely"]
    assert [one["text"] for one in page.of("sr-had")] == ["3× in the history", "1× in the history"]


def test_popularity_has_no_bar(session):
    page = Elements(drawing.next_lists([session], [[Shown(1, "a", "", "", math.nan)]], None, [], ""))
    assert page.of("sr-bar") == []
    assert page.of("sr-percent")[0]["text"] == "–"


def test_what_came_next_is_marked_and_named(session):
    found = shown("item 1", "item 2")
    page = Elements(drawing.next_lists([session], [found], "item 2", ["It stands at place 2."], ""))
    assert [("✓ came next" in one["text"], "sr-target" in one["class"]) for one in page.of("sr-row")] == [
        (False, False),
        (True, True),
    ]
    words = [one["text"] for one in page.of("sr-words")]
    assert words == ["What came next: Title 2 (item 2)", "It stands at place 2."]


def test_what_two_lists_differ_in_has_a_colour_and_a_word(session):
    page = Elements(drawing.next_lists([session, session], [shown("a", "b"), shown("b", "c")], None, [], "1 of 2"))
    rows = [(one["text"].split(" %")[1], "sr-differs" in one["class"]) for one in page.of("sr-row")]
    assert rows == [("only here", True), ("place 1 there", False), ("place 2 there", False), ("only here", True)]
    assert "1 of 2" in [one["text"] for one in page.of("sr-words")]
    alone = Elements(drawing.next_lists([session], [shown("a", "b")], None, [], ""))
    assert alone.of("sr-mark") == alone.of("sr-differs") == []


def test_trajectories_are_cards_and_differ_step_by_step(session):
    one, two = shown("a", "b", "c"), shown("a", "c")
    page = Elements(drawing.trajectories([session, session], [one, two]))
    cards = page.of("sr-card")
    assert [card["text"][:7] for card in cards] == ["step 1a", "step 2b", "step 3c", "step 1a", "step 2c"]
    assert ["sr-differs" in card["class"] for card in cards] == [False, True, True, False, True]
    assert [card["text"].endswith("differs") for card in cards] == ["sr-differs" in card["class"] for card in cards]
    assert Elements(drawing.trajectories([session], [one])).of("sr-differs") == []


def test_of_a_long_history_the_latest_items_are_drawn(session):
    history = [f"item {n}" for n in range(30)]
    page = Elements(drawing.history_cards(history, session, ["item 29"], "Somebody."))
    cards = [one["text"] for one in page.of("sr-card")]
    assert cards[0] == "Title 18Shelf 0 · item 18"
    assert cards[-1] == "item 29unknown to the model"
    assert len(cards) == drawing.SHOWN_CARDS
    assert [one["text"] for one in page.of("sr-words") + page.of("sr-note")] == [
        "Somebody.",
        "18 earlier items are not drawn.",
    ]
    assert "earlier" not in drawing.history_cards(history[:3], session, [], "")


def test_errors_are_read_out_at_once():
    page = Elements(drawing.message(["wrong"], ["to be known"]))
    assert [(one["role"], one["text"]) for one in page.found] == [("alert", "wrong"), ("status", "to be known")]


EVIL = "<img src=x onerror=alert(1)>\"'&"


def test_nothing_but_text_comes_out_of_any_name(session):
    evil = DemoSession(EVIL, session.recommender, {EVIL: Title(EVIL, EVIL)})
    one = Shown(1, EVIL, EVIL, EVIL, 0.5, 1, EVIL, 0.1)
    for html in (
        drawing.next_lists([evil], [[one]], EVIL, [EVIL], EVIL),
        drawing.trajectories([evil], [[one]]),
        drawing.history_cards([EVIL], evil, [EVIL], EVIL),
        drawing.message([EVIL], [EVIL]),
    ):
        page = Elements(html)
        assert "img" not in {one["tag"] for one in page.found}
        assert any(EVIL in one["text"] for one in page.found)


def test_no_title_or_id_is_a_formula(session):
    found = [Shown(1, "=1+1", "@x", "", 0.5), Shown(2, "-3", "", "", 0.25)]
    page = Elements(drawing.next_lists([session], [found], None, [], ""))
    assert [one["text"] for one in page.of("sr-title")] == ["'@x", "'-3"]
    assert [one["text"] for one in page.of("sr-small")] == ["'=1+1"]


def test_a_long_list_of_unknown_items_is_not_repeated():
    assert drawing.some([f"new{n % 700}" for n in range(1000)]) == "new0, new1, new2, new3, new4 and 695 more"
    assert drawing.some(["a", "b", "a"]) == "a, b"
