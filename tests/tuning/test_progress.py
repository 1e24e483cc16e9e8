"""Lines for people, and the time that a search has used over all its starts."""

import time
from types import SimpleNamespace

import pytest

from sr_transformers.records import read_json
from sr_transformers.tuning import storage
from sr_transformers.tuning.progress import Lines, Progress, in_line, value_of


def over(number, value, ended=storage.FULL, state=storage.State.COMPLETE, steps=None, **attributes):
    of_trial = {"ended": ended, "epochs": 3.0, "seconds": 90.0, **attributes}
    return SimpleNamespace(
        number=number, value=value, state=state, params={"hidden_size": 64}, user_attrs=of_trial,
        intermediate_values=steps or {},
    )  # fmt: skip


def test_time_goes_on_counting_where_an_earlier_start_ended(tmp_path):
    first = Progress(tmp_path, time.time() - 100)
    first.count("probe", 7.0)
    first.count("probe", 1.0)
    assert first.spent() == pytest.approx(100, abs=1)
    second = Progress(tmp_path, time.time() - 5)
    assert second.spent() == pytest.approx(105, abs=2)
    assert second.content["parts"] == {"probe": 8.0}
    second.keep(final=3)
    assert read_json(tmp_path / "progress.json")["final"] == 3


def test_it_is_written_now_and_then(tmp_path, monkeypatch):
    progress = Progress(tmp_path, time.time())
    progress.tick()
    assert not (tmp_path / "progress.json").exists()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 6)
    progress.tick()
    assert (tmp_path / "progress.json").exists()


def test_every_trial_is_told_once_with_the_best_so_far():
    said = []
    lines = Lines(said.append, lambda: 600.0)
    first = over(0, 0.5, name="sparse")
    lines.tell([first])
    pruned = over(1, None, storage.PRUNED, storage.State.PRUNED, {1: 0.2, 2: 0.4, 3: 0.3})
    refused = over(2, None, storage.TOO_LONG, storage.State.PRUNED)
    failed = over(3, None, storage.FAILED, storage.State.FAIL, error="no memory")
    lines.tell([first, pruned, refused, failed, over(4, 0.6)])
    assert len(said) == 5
    rows = [line.split(maxsplit=6) for line in said[1:]]
    assert [row[0] for row in rows] == ["0", "1", "3", "4"]
    assert [row[1] for row in rows] == ["0.5000", "0.4000", "–", "0.6000"]
    assert [row[2] for row in rows] == ["0.5000", "0.5000", "0.5000", "0.6000"]
    assert rows[0][3:6] == ["3", "1.5", "10.0"]
    assert said[1].endswith("all epochs  sparse: width 64")
    assert said[3].endswith("failed      no memory")


def test_the_value_of_a_trial_is_the_best_that_it_reached():
    assert value_of(over(0, 0.5, steps={1: 0.5, 2: 0.1})) == 0.5
    assert value_of(over(0, None, state=storage.State.PRUNED, steps={1: 0.2, 2: 0.1})) == 0.2
    assert value_of(over(0, None, state=storage.State.FAIL)) is None


def test_parameters_in_a_line_begin_with_the_size():
    assert in_line({"warp": 9, "learning_rate": 0.002, "num_hidden_layers": 2}) == "layers 2, lr 0.002, warp 9"
