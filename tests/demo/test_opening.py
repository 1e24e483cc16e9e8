"""Histories that the page opens with."""

import polars as pl
import pytest

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender, prepare
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.demo.answers import DemoSession, parse_history, split_moments
from sr_transformers.demo.opening import MADE_UP, HeldOut, MadeUp


@pytest.fixture(scope="module")
def session(checkpoints):
    return DemoSession.load(checkpoints[0])


def test_a_held_out_user_has_the_history_before_the_target(session, users):
    openings = HeldOut(users, session)
    found = {openings.draw() for _ in range(200)}
    assert len(found) == 10  # everybody is drawn sooner or later
    for one in found:
        user = int(one.words.split(":")[0].removeprefix("User u"))
        steps = (0, 1, 2) if user == 9 else (0, 1, 2, 3)  # item 12 is nobody's in the training part
        assert parse_history(one.text) == [f"item {user + step}" for step in steps]
        assert one.target == f"item {user}"
        more = " (1 more with items outside the vocabulary)" if user == 9 else ""
        assert one.words == f"User u{user}: {len(steps)} interactions before the test target{more}."


def test_a_model_that_reads_moments_gets_them(with_history, users):
    one = HeldOut(users, DemoSession.load(with_history), 0).draw()
    user = int(one.words.split(":")[0].removeprefix("User u"))
    assert user < 9
    items = [f"item {user + step}" for step in (0, 1, 2, 3)]
    assert split_moments(parse_history(one.text)) == (items, [10 * user + moment for moment in (0, 0, 2, 3)])
    assert one.text.count("@") == 3  # a basket has its moment once


def test_a_seed_draws_the_same(session, users):
    for make in (lambda seed: HeldOut(users, session, seed), lambda seed: MadeUp(session, seed)):
        one, same, other = ([openings.draw() for _ in range(5)] for openings in (make(1), make(1), make(2)))
        assert one == same
        assert one != other


def test_a_target_outside_the_vocabulary_is_nobodys_question(prepared):
    tokenizer = prepared.tokenizer
    openings = HeldOut(prepared.path, DemoSession("known", Recommender(_model(tokenizer), tokenizer), {}))
    assert prepared.num_targets("test") == 12
    found = {openings.draw().words for _ in range(300)}
    assert len(found) == 10
    assert not [one for one in found if one.startswith(("User u10:", "User u11:"))]  # i10 and i11 came next


def test_a_log_without_anybody_to_show_or_of_other_items_is_refused(session, users, prepared, tmp_path):
    with pytest.raises(ValueError, match=r"has no item that one knows; give the log that it was trained on"):
        HeldOut(prepared.path, session)
    rows = {"user_id": ["a", "a", "a"], "item_id": ["item 1", "item 2", "item 3"], "timestamp": [1, 2, 3]}
    short = pl.DataFrame(rows)  # the third one is nobody's in the training part
    nobody = prepare(short, tmp_path / "data").path
    with pytest.raises(ValueError, match=r"has no test target that the training part has too"):
        HeldOut(nobody, session)


def test_a_model_writes_what_it_finds_likely(session):
    openings = MadeUp(session, 0)
    drawn = [openings.draw() for _ in range(20)]
    for one in drawn:
        history = parse_history(one.text)
        assert len(history) == len(set(history)) == MADE_UP  # evaluated without seen items
        assert one.target is None
        assert "one generated" in one.words
        for place in range(1, MADE_UP):
            likely = session.recommender.recommend(history[:place], 20)
            assert history[place] in {found.item for found in likely}
    firsts = [int(parse_history(one.text)[0].split()[1]) for one in drawn]
    assert sum(firsts) / len(firsts) > 15  # by training count: the mean is 19.7, without counts 14.5


def test_it_ends_where_no_item_is_left():
    tokenizer = build_tokenizer(["a", "b", "c"])
    session = DemoSession("three", Recommender(_model(tokenizer), tokenizer), {})
    assert sorted(parse_history(MadeUp(session).draw().text)) == ["a", "b", "c"]


def _model(tokenizer):
    return LSRMForCausalLM(LSRMConfig(vocab_size=len(tokenizer), hidden_size=8, max_position_embeddings=6)).eval()
