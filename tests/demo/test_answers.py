import math

import pytest

from sr_transformers import Recommender
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.demo.answers import (
    DemoSession,
    Shown,
    agreement,
    parse_history,
    split_moments,
    where,
    write_history,
)
from sr_transformers.demo.files import read_titles


@pytest.fixture(scope="module")
def session(checkpoints, titles):
    return DemoSession.load(checkpoints[0], read_titles(titles))


def test_it_shows_what_the_recommender_says(session, checkpoints):
    shown = session.next_items(["item 3", "item 4"], 5, True)
    wanted = Recommender.from_pretrained(checkpoints[0]).recommend(["item 3", "item 4"], 5)
    assert [one.place for one in shown] == [1, 2, 3, 4, 5]
    assert [(one.item, one.probability) for one in shown] == [(one.item, one.probability) for one in wanted]
    for one in shown:
        number = int(one.item.split()[1])
        assert (one.title, one.domain) == (("", "") if number % 2 else (f"Title {number}", f"Shelf {number % 3}"))
        assert (one.had, one.reason) == (0, "")
        assert math.isnan(one.without_past)


def test_seen_items_can_be_shown(session):
    history = [f"item {n}" for n in range(6)]
    assert not {one.item for one in session.next_items(history, 30, True)} & set(history)
    shown = session.next_items([*history, "item 2"], 30, False)
    had = {one.item: one.had for one in shown}
    assert had == {f"item {n}": (2 if n == 2 else int(n < 6)) for n in range(30)}


def test_without_titles_an_item_is_its_id(checkpoints):
    session = DemoSession.load(checkpoints[0])
    assert all(one.title == "" for one in session.next_items(["item 1"], 3, True))
    assert session.label("item 1") == "item 1"
    assert session.name == "one"


def test_a_trajectory_follows_the_first_item_each_time(session):
    path = session.trajectory(["item 3"], 4, True)
    history = ["item 3"]
    for step, one in enumerate(path, 1):
        best = session.next_items(history, 1, True)[0]
        assert (one.place, one.item, one.probability) == (step, best.item, best.probability)
        history.append(one.item)
    assert len(set(history)) == 5


def test_a_trajectory_ends_when_no_item_is_left(session):
    assert len(session.trajectory([f"item {n}" for n in range(28)], 10, True)) == 2


def test_choices_are_the_most_popular_with_titles(session):
    assert session.choices()[:3] == [
        ("item 29", "item 29"),
        ("Title 28 (item 28)", "item 28"),
        ("item 27", "item 27"),
    ]
    assert len(session.choices()) == 30


def test_unknown_items_are_told_and_popularity_steps_in(session):
    assert session.unknown(["item 1", "[UNK]", "nothing"]) == ["[UNK]", "nothing"]
    shown = session.next_items(["nothing"], 2, True)
    assert [(one.item, one.title) for one in shown] == [("item 29", ""), ("item 28", "Title 28")]
    assert all(math.isnan(one.probability) for one in shown)


def test_without_training_counts_nothing_is_called_popular(session):
    plain = build_tokenizer([f"item {n}" for n in range(30)])
    silent = DemoSession("silent", Recommender(session.recommender.model, plain), {})
    assert [item for _, item in silent.choices()[:2]] == ["item 0", "item 1"]
    assert silent.next_items(["nothing"], 2, True) == []
    assert silent.trajectory(["nothing"], 2, True) == []
    assert len(silent.next_items(["nothing", "item 3"], 2, True)) == 2


def test_a_history_is_one_item_a_line():
    assert parse_history(" a b \n\n c, d\n") == ["a b", "c, d"]
    with pytest.raises(ValueError, match="history is empty"):
        parse_history(" \n ")


def named(*items):
    return [Shown(place, item, "", "", 0.25 / place) for place, item in enumerate(items, 1)]


def test_agreement_is_counted():
    one = named("a", "b", "c")
    assert agreement(one, named("a", "c", "x")) == "2 of 3 items in both lists; the same first item."
    assert agreement(one, named("b")) == "1 of 3 items in both lists; different first item."


def test_it_is_said_where_what_came_next_stands(session):
    found = named("item 3", "item 4")
    assert where("item 4", found, session, False) == "What came next stands at place 2: 12.50 %."
    assert where("item 5", found, session, False) == "What came next is not among the first 2."
    assert where("item 5", found, session, True).endswith("is an item of the history, and those are left out.")
    assert where("nothing", found, session, False) == "This model does not know what came next."


@pytest.mark.parametrize("times", [None, [0, 0, 0], [-3, 5, 5]])
def test_a_history_that_is_written_is_read_again(times):
    text = write_history(["a b", "c", "a b"], times)
    assert (parse_history(text) if times is None else split_moments(parse_history(text))) == (
        ["a b", "c", "a b"] if times is None else (["a b", "c", "a b"], times)
    )


def test_a_model_with_history_reads_moments_and_gives_reasons(with_history):
    session, recommender = DemoSession.load(with_history), Recommender.from_pretrained(with_history)
    history, times = ["item 3", "item 4", "item 3"], [10, 10, 40]
    assert session.explains
    shown = session.next_items(history, 30, False, times)
    wanted = recommender.recommend(history, 30, False, times=times, explain=True)
    assert [(one.item, one.probability, one.reason) for one in shown] == [
        (one.item, one.probability, one.reason) for one in wanted
    ]
    for one, same in zip(shown, wanted, strict=True):
        assert one.without_past * same.own_factor == pytest.approx(one.probability)
        assert (one.had > 0) == same.had_before
    other = session.next_items(history, 30, False, [10, 40, 40])
    assert [one.probability for one in shown] != [one.probability for one in other]
    followed = session.trajectory(history, 3, False, times)
    for step in range(3):
        so_far = [*history, *(one.item for one in followed[:step])]
        best = recommender.recommend(so_far, 1, False, times=[*times, *[40] * step], explain=True)[0]
        assert (followed[step].item, followed[step].probability) == (best.item, best.probability)
        assert followed[step].reason == best.reason


def test_where_popularity_steps_in_nothing_is_explained(with_history):
    (first, *_) = DemoSession.load(with_history).next_items(["nothing"], 3, False, [0])
    assert (first.item, first.reason) == ("item 29", "")
    assert math.isnan(first.without_past)


def test_moments_of_lines():
    assert split_moments(["a @ 3", "b", "c d @ 4", "@ 5 @7"]) == (["a", "b", "c d", "@ 5"], [3, 3, 4, 7])
    assert split_moments(["a", "b @ -4"]) == (["a", "b"], [-4, -4])
    assert split_moments(["a", "b@3", "c @ x"]) == (["a", "b@3", "c @ x"], [0, 0, 0])
    with pytest.raises(ValueError, match="The moment 3 stands below 4"):
        split_moments(["a @ 4", "b @ 3"])
    with pytest.raises(ValueError, match="at most 64 bits"):
        split_moments(["a @ 99999999999999999999"])
