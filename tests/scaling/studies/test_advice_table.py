"""Advice beside the full study of the same log."""

import json

import advice
import pytest
from made_studies import INTERACTIONS, add_run

from sr_transformers.scaling.studies.advise import Hardware, numbers


class Log:
    num_train_interactions = INTERACTIONS
    vocab_size = 1002


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The full study of a log whose law is known: two seeds up to 3.1 m, and half of the users."""
    folder = tmp_path_factory.mktemp("full")
    for size in ("98k", "786k", "3.1m"):
        for seed in (1, 2):
            add_run(folder, size, seed=seed)
        add_run(folder, size, 0.5)
    return folder


@pytest.fixture(scope="module")
def answer(found):
    return numbers(found, Log, Hardware())


def rows_of(answer, study):
    return {row[0]: row[1:] for row in advice.beside(answer, advice.truth(study, answer))}


def test_right_advice_is_said_to_be_right(answer, study):
    rows = rows_of(answer, study)
    assert {question: row[2] for question, row in rows.items()} == {
        "loss of 786k": "inside",
        "loss of 3.1m": "inside",
        "gain from 786k to 3.1m": "same direction",
        "gain of 786k from 50% to all of the users": "same direction",
    }
    assert rows["gain from 786k to 3.1m"][1].startswith("+0.0")


def test_wrong_advice_is_said_to_be_wrong(answer, study):
    sizes = [{**row, "loss": row["loss"] + 1 + row["N"] / 1e6} for row in answer["sizes"]]
    sizes = [{**row, "loss_interval": [row["loss"] - 0.1, row["loss"] + 0.1]} for row in sizes]
    choice = {**answer["bottleneck"], "gain_from_data": -0.1}
    rows = rows_of({**answer, "sizes": sizes, "bottleneck": choice}, study)
    assert [row[2] for row in rows.values()] == ["outside", "outside", "other direction", "other direction"]


def test_advice_that_knows_nothing_is_open(answer, study):
    sizes = [{"size": row["size"], "N": row["N"]} for row in answer["sizes"]]
    per_doubling = {"data": None, "size": None}
    silent = {"sizes": sizes, "bottleneck": None, "not_known_because": "too few runs were made"}
    silent["measured"] = {**answer["measured"], "per_doubling": per_doubling}
    rows = rows_of({**answer, **silent}, study)
    assert [row[2] for row in rows.values()] == ["open"] * 4
    assert rows["loss of 786k"][0] == "not known, because too few runs were made"


def test_questions_that_the_study_does_not_answer_are_left_out(answer, tmp_path):
    for size in ("98k", "786k"):
        add_run(tmp_path, size)
    assert list(rows_of(answer, tmp_path)) == ["loss of 786k"]


def test_another_protocol_is_refused(answer, study):
    with pytest.raises(ValueError, match="different protocols"):
        advice.truth(study, {**answer, "protocol": {**answer["protocol"], "filter_seen": False}})


def test_the_page_is_made_of_all_answers(answer, study, tmp_path):
    for folder in ("advice", "scaling"):
        (tmp_path / folder).mkdir()
    (tmp_path / "scaling" / "shop").symlink_to(study)
    for name in ("shop", "other"):
        (tmp_path / "advice" / f"{name}.json").write_text(json.dumps({**answer, "not_known_because": None}))
    said = advice.text(tmp_path)
    assert "| shop | loss of 786k | " in said
    assert "| other |" not in said
    assert f"other, {answer['runs']} runs:" in said
    (tmp_path / "advice" / "shop.json").write_text(json.dumps({"runs": 3, "measured": answer["measured"]}))
    assert "| shop |" not in advice.text(tmp_path)  # of an earlier version
    assert "shop, 3 runs:" in advice.text(tmp_path)
