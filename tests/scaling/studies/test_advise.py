import pytest
from made_studies import INTERACTIONS, TRUTH, add_run

from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.studies.advise import Hardware, duration, numbers, price, text
from sr_transformers.scaling.studies.analysis import analyse


class Log:
    """As much of a prepared log as advice looks at."""

    class path:  # noqa: N801
        name = "shop"

    num_train_interactions = INTERACTIONS
    vocab_size = 1002


def test_every_size_of_the_paper_has_a_loss_an_interval_and_a_price(found):
    answer = numbers(found, Log, Hardware(flops=1e12, utilisation=0.5, price=3.0))
    assert [row["size"] for row in answer["sizes"]] == ["98k", "786k", "1.5m", "3.1m", "9m", "75m", "800m"]
    columns = {"N": [98_304.0], "D": [float(INTERACTIONS)]}
    assert answer["sizes"][0]["loss"] == pytest.approx(LAWS["joint"].predict(TRUTH, columns)[0], rel=0.01)
    for row in answer["sizes"]:
        low, high = row["loss_interval"]
        assert low <= row["loss"] <= high
    first = answer["sizes"][0]
    hours = 6 * (98_304 + 1002 * 64) * INTERACTIONS * 3 / (0.5e12 * 3600)
    assert first["hours"] == pytest.approx(hours)
    assert first["cost"] == pytest.approx(3 * hours)


def test_the_bottleneck_is_named_with_how_sure(found):
    choice = numbers(found, Log, Hardware())["bottleneck"]
    assert choice["bottleneck"] == "data"
    assert choice["agreeing_draws"] >= 0.9


def test_the_answer_is_in_plain_words(found):
    answer = numbers(found, Log, Hardware())
    assert answer["runs"] == len(found.runs)
    assert answer["commits"] == ["unknown"]
    said = text(answer, found, Log)
    assert "Bottleneck at N = 1,572,864: data (" in said
    assert "of the refits agree" in said
    assert "| 800m | 829,440,000 |" in said
    assert "527 x beyond what was measured, a guess |" in said
    assert "How sure:" in said


def test_a_law_that_is_not_determined_gives_no_number(tmp_path):
    for size in ("3k", "12k"):
        add_run(tmp_path, size)
    found = analyse(tmp_path, draws=5)
    answer = numbers(found, Log, Hardware())
    assert answer["law"] is None
    assert answer["bottleneck"] is None
    assert all("loss" not in row for row in answer["sizes"])
    said = text(answer, found, Log)
    assert "What larger models would reach is not known, because" in said
    assert "these runs do not say" in said
    assert "does not help" not in said


def test_a_law_of_size_alone_answers_for_the_users_it_was_measured_on(tmp_path):
    for size in ("3k", "12k", "49k", "98k", "197k", "786k"):
        add_run(tmp_path, size, 0.3)
    found = analyse(tmp_path, draws=5)
    answer = numbers(found, Log, Hardware())
    assert (answer["law"], "loss" in answer["sizes"][0]) == ("n", True)
    said = text(answer, found, Log)
    assert "Expected on 30% of the users with 95 % intervals for one run; time and cost of 3 epochs on one" in said
    assert "- Loss, HR@10 and NDCG@10 are those of 30% of the users" in said


def test_runs_that_were_still_improving_give_no_number_and_say_why(found):
    improving = [{"kind": "improving", "reason": "were still improving at their end", "names": ["98k-e3-s1"]}]
    left = [{"run": "long", "seconds": 9e3}, {"run": "a", "seconds": 2e3}, {"run": "b", "seconds": 1e3}]
    changed = type(found)(
        **{**vars(found), "document": {**found.document, "reservations": improving, "left_out": left}}
    )
    answer = numbers(changed, Log, Hardware())
    assert answer["law"] is None
    assert answer["bottleneck"] is None
    assert not any({"loss", "hr@10"} & set(row) for row in answer["sizes"])
    said = text(answer, changed, Log)
    assert "is not known, because some were still improving at their end: 98k-e3-s1." in said
    assert "For the reason above these gains are not what size and data would bring at their best." in said
    assert "Another hour would buy a, b; the same command goes on." in said
    assert numbers(changed, Log, Hardware(), jobs=4)["next_hour"] == ["long", "a", "b"]
    only_long = {**changed.document, "left_out": left[:1], "reservations": []}
    answer = numbers(type(found)(**{**vars(found), "document": only_long}), Log, Hardware())
    assert answer["next_hour"] == ["long"]
    assert answer["law"] == "n"  # runs that are missing alone do not make the others unsound


def test_from_a_part_of_the_users_only_the_joint_law_leads_to_all_of_the_data(found):
    assert numbers(found, Log, Hardware())["law"] == "n"
    part = type(found)(**{**vars(found), "fraction": 0.3})
    assert numbers(part, Log, Hardware())["law"] == "joint"
    assert "Expected on all of the data with" in text(numbers(part, Log, Hardware()), part, Log)


def test_what_was_measured_answers_even_without_a_law(found, tmp_path):
    said = text(numbers(found, Log, Hardware()), found, Log)
    assert "- On 100% of the users the best of 7 sizes from 3,072 to 1,572,864 is N = 1,572,864: loss 4.9" in said
    assert "; N = 1,572,864, from 10% to 100% of the users)." in said
    assert "; from N = 3,072 to 1,572,864 on 100% of the users)." in said
    for size in ("3k", "12k"):
        add_run(tmp_path, size)
    few = analyse(tmp_path, draws=5)
    said = text(numbers(few, Log, Hardware()), few, Log)
    assert "- Several amounts of data were not measured." in said
    assert "nats (no seed was repeated; from N = 3,072 to 12,288 on 100% of the users)." in said


def test_times_and_prices_are_readable():
    assert [duration(hours) for hours in (1.1e-5, 0.05, 3.14, 31.2, 12345)] == [
        "0.04 s",
        "3 min",
        "3.1 h",
        "31 h",
        "12,000 h",
    ]
    assert [price(cost) for cost in (0.0, 2e-5, 0.5, 1234.5)] == ["0.00", "< 0.01", "0.50", "1,234.50"]


@pytest.mark.parametrize("values", [{"flops": 0}, {"utilisation": 1.5}, {"price": -1}])
def test_hardware_must_make_sense(values):
    with pytest.raises(ValueError, match="hardware is"):
        Hardware(**values)
