import argparse

import pytest

from sr_transformers.cli import main
from sr_transformers.cli.values import at_least, duration


def test_whole_numbers_from_a_least_one_on():
    assert at_least(1)("7") == 7
    for text in ("0", "-3", "1.5", "x", "", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="no whole number of at least 1"):
            at_least(1)(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate --data d --k 5 0", "argument --k: '0' is no whole number of at least 1"),
        ("recommend --model m --history i1 -k -2", "argument -k: '-2' is no whole number of at least 1"),
        ("tasks --data d --seed -1", "argument --seed: '-1' is no whole number of at least 0"),
        ("tasks --data d --window 0", "argument --window: '0' is no"),
        ("plan --size 98k --items 0", "argument --items: '0' is no"),
        ("plan --size 98k --items 10 --row-width 0", "argument --row-width: '0' is no"),
        ("prepare x.csv --output o --shards 0", "argument --shards: '0' is no"),
        ("plan --size 98k --items 10 --gpus=", "gpus is empty"),
        ("evaluate --data=", "data is empty"),
    ],
)
def test_numbers_out_of_range_are_refused_by_their_option_before_anything_is_read(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(words.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("epochs", ["nan", "inf", "0", "-1"])
def test_epochs_of_a_plan_are_a_number(epochs, capsys):
    assert main(["plan", "--size", "98k", "--items", "100", "--targets", "5", "--epochs", epochs]) == 2
    assert f"epochs is {float(epochs)}; it must be a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_times(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "0s", "-3m", "1d", "30m1h", "1e3s", "1" * 400 + "h", "nan"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no time above 0; write 90s, 30m, 1h or 1h30m"):
        duration(text)
