import json
import re
import shutil

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from made_studies import add_run

from sr_transformers.records import RunRecord
from sr_transformers.scaling.laws.points import points_from
from sr_transformers.scaling.studies import report
from sr_transformers.scaling.studies.report import _repeating, keep_floor, size_table, write_report
from sr_transformers.scaling.studies.sentences import parameter

pytest.importorskip("matplotlib", reason="figures need the extra `figures`")
pytestmark = pytest.mark.usefixtures("drawn")


@pytest.fixture(scope="module")
def written(study_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("report") / "out"
    return write_report(study_folder, output, draws=20), output


def test_the_folder_is_what_the_hub_shows(written):
    _, output = written
    text = (output / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: sr_transformers\n")
    assert "data_files: runs.parquet" in text
    assert pl.read_parquet(output / "runs.parquet").height == 46
    assert pq.read_schema(output / "runs.parquet").field("loss").metadata == {b"unit": b"nats per test target"}
    lines = (output / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 46
    assert json.loads(lines[0])["history"] == []
    assert (output / "study.yaml").exists()


def test_a_report_that_found_no_room_is_written_by_the_same_command_later(study_folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(report, "save", full)
        with pytest.raises(OSError, match="No space left"):
            write_report(study_folder, tmp_path / "out", draws=0)
    write_report(study_folder, tmp_path / "out", draws=0)
    assert (tmp_path / "out" / "README.md").is_file()


def test_every_figure_is_there_twice_and_linked(written):
    _, output = written
    text = (output / "README.md").read_text()
    names = {path.stem for path in (output / "figures").glob("*.png")}
    assert names == {path.stem for path in (output / "figures").glob("*.svg")}
    assert names >= {"loss-size", "loss-held-out", "predicted-measured", "size-and-data", "data", "isoflop", "isoloss"}
    assert names >= {"learning-curves", "compute", "shape"}
    assert "repetition" in names
    assert all(f"![{name}](figures/{name}.png)" in text for name in names)


def test_runs_that_stopped_at_different_epochs_are_no_picture_of_repetition(study_folder, tmp_path):
    shutil.copytree(study_folder, tmp_path / "shop")
    path = tmp_path / "shop" / "plan.json"
    plan = json.loads(path.read_text())
    for name, run in plan["runs"].items():
        run["epochs"] = 60.0
        record = RunRecord.load(tmp_path / "shop" / "runs" / name)
        record.recipe["training"]["num_train_epochs"] = 60.0
        record.save(tmp_path / "shop" / "runs" / name)
    path.write_text(json.dumps(plan))
    write_report(tmp_path / "shop", tmp_path / "out", draws=0)
    names = {one.stem for one in (tmp_path / "out" / "figures").glob("*.png")}
    assert "loss-size" in names
    assert "repetition" not in names


def test_the_html_needs_nothing_beside_it(written):
    _, output = written
    text = (output / "report.html").read_text()
    assert text.count("data:image/png;base64,") == len(list((output / "figures").glob("*.png")))
    # Without the pictures: any four letters turn up in enough base64.
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert "<h2>Ablations</h2>" in text


def test_the_numbers_in_the_text_are_those_of_the_analysis(written):
    found, output = written
    stored = json.loads((output / "analysis.json").read_text())
    assert stored == found.document
    assert f"alpha {parameter(stored['laws']['n'], 'alpha')}" in (output / "README.md").read_text()


def test_sizes_are_means_over_seeds(written):
    found, _ = written
    head, _, *rows = size_table(found).splitlines()
    assert head == "| N | with item table | rates | runs | test loss | NDCG@10 | HR@10 |"
    points = found.laws["n"].points.columns
    assert [int(row.split(" | ")[0].strip("| ").replace(",", "")) for row in rows] == sorted(set(points["N"]))
    for row in rows:
        n, whole, rates, runs, loss, *_ = row.strip("| ").split(" | ")
        assert int(whole.replace(",", "")) > int(n.replace(",", ""))
        assert rates == "carried"  # the plan of this study names no rate that was tuned for a size
        of_size = points["loss"][points["N"] == int(n.replace(",", ""))]
        assert int(runs) == len(of_size)
        assert float(loss.split(" ± ")[0]) == pytest.approx(of_size.mean(), rel=1e-3)
        if len(of_size) > 1:
            assert float(loss.split(" ± ")[1]) == pytest.approx(of_size.std(ddof=1), rel=0.06)


def test_a_study_that_determines_nothing_still_has_a_report(tmp_path):
    for size in ("3k", "12k"):
        add_run(tmp_path / "study", size)
    write_report(tmp_path / "study", tmp_path / "out", draws=5)
    write_report(tmp_path / "study", tmp_path / "out", draws=5)  # over its own report
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Not answered: n, n-with-table: 2 points for 3 parameters" in text
    assert text.count("2 points for 3 parameters of law n:") == 1  # once for all that it leaves open


def test_it_does_not_write_over_something_else(study_folder, tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(FileExistsError, match="holds no report"):
        write_report(study_folder, tmp_path)


def test_the_loss_of_a_teacher_is_kept_with_the_study(study_folder, tmp_path):
    shutil.copytree(study_folder, tmp_path / "study")
    (tmp_path / "sampled.json").write_text('{"last_loss": 4.5, "last_loss_error": 0.01}')
    write_report(tmp_path / "study", tmp_path / "out", draws=5, floor=tmp_path / "sampled.json")
    assert "whoever it was sampled from has a loss of 4.500 +- 0.010 nats" in (tmp_path / "out/README.md").read_text()
    assert json.loads((tmp_path / "study/floor.json").read_text())["last_loss"] == 4.5


def test_a_floor_of_nothing_is_refused(study_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--floor takes the sampled\.json that `scaling sample` wrote"):
        keep_floor(study_folder, tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"loss": 1}')
    with pytest.raises(ValueError, match="is not what `scaling sample` writes"):
        keep_floor(study_folder, tmp_path / "other.json")
    (tmp_path / "sampled.json").write_text('{"last_loss": 4.5, "last_loss_error": 0.01}')
    with pytest.raises(FileNotFoundError, match=r"is no study: it has no plan\.json"):
        keep_floor(tmp_path, tmp_path / "sampled.json")


@pytest.mark.parametrize(
    ("changes", "sampled", "message"),
    [
        ({"split": "temporal"}, {}, "is of the split temporal, which tests on others"),
        ({}, {"users": 4999}, "of a log of 4,999 users, and that of .* has 5,000"),
    ],
)
def test_a_floor_of_another_log_or_split_is_refused(tmp_path, changes, sampled, message):
    add_run(tmp_path, "3k")
    (path,) = tmp_path.glob("runs/*/run.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "data": {**record["data"], **changes}}))
    (tmp_path / "sampled.json").write_text(json.dumps({"last_loss": 4.5, "last_loss_error": 0.01, **sampled}))
    with pytest.raises(ValueError, match=message):
        keep_floor(tmp_path, tmp_path / "sampled.json")
    assert not (tmp_path / "floor.json").exists()


def test_the_picture_of_repetition_shows_the_data_that_were_repeated():
    """Not the least data, of which there is one number of epochs."""
    columns = {"N": [1e4, 1e4, 1e4, 1e4, 1e5], "unique": [1e5, 2e5, 2e5, 2e5, 2e5], "D": [1e5, 2e5, 4e5, 8e5, 2e5]}
    points = points_from({**columns, "loss": [6.0, 5.9, 5.8, 5.7, 5.6]})
    assert _repeating(points).columns["loss"].tolist() == [5.9, 5.8, 5.7]
    assert _repeating(points.take(np.array([0, 1, 4]))) is None
    # Nor less data than were seen as often as tells something.
    unique, epochs = np.array([1e5] * 4 + [5e5] * 3), np.array([1, 3, 10, 30, 1, 3, 10])
    loss = 6.0 - 0.1 * np.arange(7)
    points = points_from({"N": np.full(7, 1e4), "unique": unique, "D": unique * epochs, "loss": loss})
    assert _repeating(points).columns["unique"].tolist() == [5e5] * 3
