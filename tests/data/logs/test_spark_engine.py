"""The same preparation on Spark, in local mode; skipped where pyspark or Java is missing."""

import importlib.util
import shutil

import numpy as np
import polars as pl
import pytest

from sr_transformers.data.logs import spark_engine
from sr_transformers.data.prepare import prepare

missing = importlib.util.find_spec("pyspark") is None or shutil.which("java") is None


@pytest.fixture(scope="module")
def session():
    """One local session for all tests: starting Java takes seconds."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.shuffle.partitions", "3").config("spark.driver.bindAddress", "127.0.0.1")
    # Small blocks: a file of a few hundred rows is read by several workers.
    running = builder.config("spark.sql.files.maxPartitionBytes", "2000").getOrCreate()
    running.sparkContext.setLogLevel("ERROR")
    yield running
    running.stop()


def random_log(seed: int, rows: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame({
        "user_id": [f"ü{n}" for n in rng.integers(0, 40, rows)],
        "item_id": rng.integers(0, 30, rows),
        "timestamp": rng.integers(0, 12, rows),  # many ties
        "rating": rng.integers(1, 6, rows) / 2,
        "domain": rng.choice(["a", "b"], rows),
    })  # fmt: skip


def same(one, other) -> None:
    files = sorted(path.relative_to(one.path) for path in one.path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other.path) for path in other.path.rglob("*") if path.is_file())
    for file in files:
        if file.name != "manifest.json":
            assert (one.path / file).read_bytes() == (other.path / file).read_bytes(), file
    first, second = dict(one.manifest), dict(other.manifest)
    assert first.pop("versions") != second.pop("versions")
    assert first == second


@pytest.mark.slow
@pytest.mark.skipif(missing, reason="pyspark or Java is missing")
class TestSpark:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"min_interactions": 8, "min_rating": 1.0, "since": 2},
            {"repeats": "first", "split": "paper", "min_trajectory_length": 12},
            {"split": "temporal", "shards": 2},
        ],
    )
    def test_both_engines_write_the_same_files(self, session, tmp_path, options):
        (tmp_path / "log").mkdir()
        for part in range(2):
            random_log(part).write_parquet(tmp_path / "log" / f"{part}.parquet")
        made = [
            prepare(tmp_path / "log", tmp_path / engine, engine=engine, **options) for engine in ("duckdb", "spark")
        ]
        same(*made)

    @pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.dat"])
    def test_text_is_read_in_its_order_however_it_is_cut(self, session, tmp_path, name):
        log = random_log(7, 900)
        if name == "log.jsonl":
            log.write_ndjson(tmp_path / name)
        elif name == "log.csv":
            log.write_csv(tmp_path / name)
        else:
            (tmp_path / name).write_text("".join("::".join(map(str, row)) + "\n" for row in log.rows()))
        how = {"names": log.columns} if name == "log.dat" else {}
        made = [prepare(tmp_path / name, tmp_path / engine, engine=engine, **how) for engine in ("duckdb", "spark")]
        same(*made)

    @pytest.mark.parametrize(
        "times", [["2024-01-01T00:00:00+01:00", "2024-01-01", "2024-01-03 10:00"], ["1.5", "2", "3e1"], [1.5, 2.0, 3.0]]
    )
    def test_times_of_any_kind_and_tables(self, session, tmp_path, times):
        log = pl.DataFrame({"user_id": [1, 1, 1], "item_id": ["x", "y", "z"], "timestamp": times})
        made = [prepare(log, tmp_path / engine, engine=engine) for engine in ("duckdb", "spark")]
        same(*made)

    def test_a_bad_row_is_named_with_its_file(self, session, tmp_path):
        (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n" + "u,i,1\n" * 900)
        (tmp_path / "b.csv").write_text("user_id,item_id,timestamp\n" + "u,i,1\n" * 600 + "u,i,soon\n")
        with pytest.raises(ValueError, match=r"b.csv: timestamp is no time .* in row 601: 'soon' \(1 such rows\)"):
            prepare(tmp_path / "*.csv", tmp_path / "data", engine="spark")
        assert not (tmp_path / "data").exists()

    def test_a_row_that_lacks_a_field_is_refused(self, session, tmp_path):
        (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,i,1\nu,i\n")
        with pytest.raises(ValueError, match=r"log.csv: cannot be read as csv: row 2 has 2 fields, not 3"):
            prepare(tmp_path / "log.csv", tmp_path / "data", engine="spark")

    def test_columns_that_differ_in_case_and_moments_of_fractions(self, session, tmp_path):
        log = pl.DataFrame({"USER_ID": ["no"] * 4, "user_id": ["u"] * 4, "item_id": list("abcd")})
        log.with_columns(timestamp=pl.Series([1.5, 2.5, 3.5, 4.5])).write_parquet(tmp_path / "log.parquet")
        made = [
            prepare(tmp_path / "log.parquet", tmp_path / engine, engine=engine, since=2)
            for engine in ("duckdb", "spark")
        ]
        same(*made)
        assert made[1].histories["user_id"][:] == ["u"]

    @pytest.mark.parametrize("times", [["1", "2", "1_000"], ["1.5", "2", "1d"], ["2024-01-01T00:00+99:00"] * 3])
    def test_both_engines_refuse_the_same_times(self, session, tmp_path, times):
        log = pl.DataFrame({"user_id": [1, 1, 1], "item_id": ["x", "y", "z"], "timestamp": times})
        for engine in ("duckdb", "spark"):
            with pytest.raises(ValueError, match=r"log: timestamp is no time"):
                prepare(log, tmp_path / engine, engine=engine)


def test_without_pyspark_or_java_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(spark_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'sr-transformers\[spark\]', and a JRE"):
        spark_engine.SparkEngine(tmp_path)
