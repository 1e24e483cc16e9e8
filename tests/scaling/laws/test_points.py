import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.points import points_from, read_table

GOOD = {"N": [1e4, 1e5, 1e6, 1e7], "D": [1e6, 1e6, 1e7, 1e7], "loss": [6.0, 5.5, 5.2, 5.1]}


def changed(**columns):
    return {**GOOD, **columns}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
@pytest.mark.parametrize("name", ["N", "D", "loss"])
def test_values_that_are_no_points_are_refused_with_their_row(name, value):
    with pytest.raises(ValueError, match=rf"point 3: {name} is .*must be a finite number above 0 \(1 of 4"):
        points_from(changed(**{name: [*GOOD[name][:2], value, GOOD[name][3]]}))


def test_compute_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="point 1: C is 0"):
        points_from({"N": [1e4], "C": [0.0], "loss": [5.0]})


def test_data_follow_from_compute():
    points = points_from({"N": [2e4, 1e6], "C": [1.2e12, 6e13], "loss": [5.0, 4.0]})
    assert points.columns["D"].tolist() == [1e7, 1e7]
    assert "C" not in points.columns


def test_a_metric_is_a_fraction():
    with pytest.raises(ValueError, match=r"point 2: the metric is 12.0.*divide per cents by 100"):
        points_from({"N": [1e4, 1e5], "metric": [0.3, 12.0]})


def test_no_points_are_refused():
    with pytest.raises(ValueError, match="the table is empty"):
        points_from({"N": []})


def test_more_distinct_data_than_data_are_refused():
    with pytest.raises(ValueError, match="point 1: unique is larger than D"):
        points_from(changed(unique=[2e6, 1e6, 1e6, 1e6]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"N": [1e4, 1e4, 1e6, 1e7], "D": [1e6, 1e6, 1e7, 1e7], "loss": [6.0, 6.0, 5.0, 4.0]}, "duplicates: 1 points"),
        (changed(N=[0.01, 0.1, 1.0, 10.0]), "units: the median N is"),
        (changed(D=[1.0, 1.0, 10.0, 10.0]), "units: the median D is"),
        (changed(loss=[400.0, 250.0, 180.0, 160.0]), "units: the largest loss is 400"),
        (changed(C=[6e8, 6e9, 6e11, 6e12]), "units: C is 0.0"),
    ],
)
def test_what_looks_odd_is_flagged(columns, message):
    assert any(message in warning for warning in points_from(columns).warnings)


def test_good_points_raise_no_flag():
    assert points_from(GOOD).warnings == []


def test_a_law_needs_its_columns():
    with pytest.raises(ValueError, match="law repeated needs the column unique; these points have N, D, loss"):
        points_from(GOOD).require(LAWS["repeated"])


def test_one_distinct_value_is_refused():
    with pytest.raises(ValueError, match=r"N has one distinct value \(10000\) in all points"):
        points_from(changed(N=[1e4] * 4)).require(LAWS["n"])


def test_fewer_points_than_parameters_are_refused():
    with pytest.raises(ValueError, match="4 points for 5 parameters of law joint"):
        points_from(GOOD).require(LAWS["joint"])


def test_the_largest_losses_go_and_are_counted():
    rest = points_from(GOOD).drop_largest_losses(1)
    assert rest.columns["loss"].tolist() == [5.5, 5.2, 5.1]
    assert rest.dropped == {"largest losses": 1}
    with pytest.raises(ValueError, match="drop-largest-losses needs the column loss"):
        points_from({"N": [1e4], "metric": [0.3]}).drop_largest_losses(1)
    with pytest.raises(ValueError, match=r"drop-largest-losses is 4; it must lie in 0\.\.3"):
        points_from(GOOD).drop_largest_losses(4)


def test_a_table_is_read_under_its_own_names(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("Model Size,Training FLOP,loss,seed\n1e4,6e10,5.0,1\n1e4,6e10,5.1,2\n1e5,6e11,4.0,1\n")
    points = read_table(path, {"N": "Model Size", "C": "Training FLOP"})
    assert points.columns["D"].tolist() == [1e6, 1e6, 1e6]
    assert points.groups[0] == points.groups[1] != points.groups[2]


def test_a_table_with_tabs_and_usual_names(tmp_path):
    path = tmp_path / "points.tsv"
    path.write_text("N\tD\tloss\n1e4\t1e6\t5.0\n")
    assert read_table(path).columns["D"].tolist() == [1e6]
    path.write_text("N;D;loss\n1e4;1e6;5.0\n")
    assert read_table(path).columns["N"].tolist() == [1e4]


def test_only_what_the_law_needs_is_read(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("N,D,hr@10,loss\n1e4,,33.0,5.0\n1e5,,35.0,4.0\n")
    assert list(read_table(path, law="n").columns) == ["N", "loss"]
    with pytest.raises(ValueError, match="row 1: column 'D' holds ''"):
        read_table(path, law="joint")
    with pytest.raises(ValueError, match="lie in"):
        read_table(path, law="saturating")


def test_compute_wins_if_it_is_asked_for(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("N,D,FLOP,loss\n1e4,5,6e10,5.0\n")
    assert read_table(path, {"C": "FLOP"}).columns["D"].tolist() == [1e6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("N,loss\n", "no rows below the head"),
        ("N,loss\n1e4,\n", r"row 1: column 'loss' holds '', which is no number"),
        ("N,loss\n1e4,5.0\nx,5.0\n", r"row 2: column 'N' holds 'x'"),
        (
            "N,loss\n1e4,5.0\n1e5,4,5\n",
            r"row 2: more cells than the head has columns \(2\); write numbers with a point",
        ),
        ("N,loss,loss\n1e4,5.0,4.0\n", "the head names the column 'loss' more than once"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(tmp_path, text, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_empty_cells_at_the_end_of_a_row_mean_nothing(tmp_path):
    (tmp_path / "points.csv").write_text("N,loss,,\n1e4,5.0,,,\n")
    assert read_table(tmp_path / "points.csv").columns["loss"].tolist() == [5.0]


@pytest.mark.parametrize("name", ["points.csv", "points.parquet"])
def test_rows_are_chosen_by_value_however_it_is_written(tmp_path, name):
    path = tmp_path / name
    columns = {"N": [1e4, 2e4, 3e4], "loss": [5.0, 4.0, 3.0], "epochs": [3.0, 3.0, 10.0], "log": ["a", "b", "nan"]}
    if path.suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join(",".join(map(str, row)) for row in [tuple(columns), *rows]) + "\n")
    else:
        pq.write_table(pa.table(columns), path)
    for wanted in ("3", "3.0", "3e0"):
        assert read_table(path, where={"epochs": wanted}).columns["loss"].tolist() == [5.0, 4.0]
    assert read_table(path, where={"epochs": "3", "log": "b"}).columns["loss"].tolist() == [4.0]
    assert read_table(path, where={"log": "nan"}).columns["loss"].tolist() == [3.0]
    with pytest.raises(ValueError, match="no row holds epochs = three"):
        read_table(path, where={"epochs": "three"})


def test_a_column_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("N,loss\n1e4,5.0\n")
    with pytest.raises(ValueError, match="no column 'Size'; it has 'N', 'loss'"):
        read_table(path, {"N": "Size"})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file"):
        read_table(tmp_path / "nowhere.csv")


def test_points_that_differ_in_what_the_law_does_not_read_are_flagged(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("N,D,loss\n1e4,1e5,6.0\n1e4,1e6,5.0\n1e5,1e6,4.0\n")
    mixed = ["mixed: law n does not read D, and points of one N have D from 100000 to 1e+06; fit points of one D, or a "
             "law that reads it."]  # fmt: skip
    assert read_table(path, law="n").warnings == mixed
    assert "law d does not read N" in read_table(path, law="d").warnings[0]
    assert read_table(path, law="joint").warnings == []
    path.write_text("N,D,loss\n1e4,1e5,6.0\n1e5,2e5,5.0\n1e5,2.01e5,4.0\n")  # more data for larger sizes
    assert read_table(path, law="n").warnings == []


def test_parts_keep_their_labels():
    part = points_from(GOOD, rows=list("abcd")).take(np.array([False, True, False, True]))
    assert part.rows == ["b", "d"]
    assert part.columns["N"].tolist() == [1e5, 1e7]


def test_rows_are_chosen_by_what_they_hold(tmp_path):
    (tmp_path / "t.csv").write_text("study,N,loss\na,1000,5.0\nb,2000,4.0\na,4000,3.0\n")
    points = read_table(tmp_path / "t.csv", None, "n", {"study": "a"})
    assert points.columns["loss"].tolist() == [5.0, 3.0]
    assert points.rows[1].endswith("t.csv row 3")
    assert points.dropped == {"other rows of the table": 1}
    with pytest.raises(ValueError, match="no row holds study = c"):
        read_table(tmp_path / "t.csv", None, "n", {"study": "c"})
    with pytest.raises(ValueError, match="no column 'block'; it has 'study', 'N', 'loss'"):
        read_table(tmp_path / "t.csv", None, "n", {"block": "c"})


def test_a_parquet_file_that_is_none_is_named(tmp_path):
    (tmp_path / "t.parquet").write_text("N,loss\n")
    with pytest.raises(ValueError, match=r"t.parquet is no Parquet file"):
        read_table(tmp_path / "t.parquet")
