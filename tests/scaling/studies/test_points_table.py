import pyarrow.parquet as pq

from sr_transformers.scaling.laws.points import read_table
from sr_transformers.scaling.studies.points_table import COLUMNS, table_of, write_points


def test_the_table_says_of_every_run_what_a_fit_needs(found, tmp_path):
    table = table_of("shop", found.runs)
    assert table.num_rows == len(found.runs)
    assert table.column_names == [name for name, _, _ in COLUMNS]
    row = next(row for row in table.to_pylist() if row["run"] == "98k-users0.3-e3-main-s2")
    run = next(run for run in found.runs if run.name == row["run"])
    assert (row["N"], row["N_with_table"], row["D"]) == (98_304, 98_304 + 64 * 1002, 120_000)
    assert (row["loss"], row["hr@10"], row["seed"]) == (run.loss, run.metric("hr@10"), 2)
    assert row["best_epoch"] == row["epochs"] == 3.0
    write_points(table, tmp_path / "points.parquet")
    assert pq.read_schema(tmp_path / "points.parquet").field("D").metadata[b"unit"] == b"distinct training interactions"


def test_the_table_can_be_fitted_as_a_file(found, tmp_path):
    write_points(table_of("shop", found.runs), tmp_path / "points.parquet")
    points = read_table(tmp_path / "points.parquet", None, "joint", {"in_law": "true", "epochs": "3.0"})
    assert points.num_values("N") == 7
    assert len(points) == 42
    assert points.dropped == {"other rows of the table": 4}
    assert not any("units" in warning for warning in points.warnings)  # D is distinct data, compute counts epochs
