import resource
import subprocess
import sys

import polars as pl
import pytest

from sr_transformers.data.logs.duckdb_engine import DuckDBEngine
from sr_transformers.data.logs.sources import Log, find_log


@pytest.fixture
def crowded(tmp_path):
    """An engine with next to no memory and no disk."""
    engine = DuckDBEngine(tmp_path, "12MB")
    engine._connection.execute("SET max_temp_directory_size = '0KB'")
    yield engine
    engine.close()


def test_no_room_is_an_error_that_names_the_folder(crowded, tmp_path):
    message = f"DuckDB has no room in {tmp_path} .its disk may be full.: Out of Memory"
    with pytest.raises(OSError, match=message):
        crowded.define("numbers", "SELECT hash(range) AS n FROM range(4000000)")
    with pytest.raises(OSError, match=message):
        crowded.rows("SELECT count(*) FROM (SELECT DISTINCT hash(range) FROM range(4000000))")
    with pytest.raises(OSError, match=message):
        list(crowded.batches("SELECT hash(range) AS n FROM range(4000000) ORDER BY n"))


def test_no_room_for_a_file_is_not_the_files_fault(crowded, tmp_path):
    log = pl.select(user_id=pl.int_range(400_000).hash(), item_id=pl.int_range(400_000).hash(1), timestamp=1)
    log.write_csv(tmp_path / "log.csv")
    with pytest.raises(OSError, match="DuckDB has no room"):
        crowded.load(find_log(tmp_path / "log.csv"), {}, False)


@pytest.mark.slow
def test_work_that_does_not_fit_the_memory_goes_to_the_disk(tmp_path):
    # Enough for the blocks that every thread holds, on machines of many cores too; half of what the rows take.
    engine = DuckDBEngine(tmp_path, "128MB")
    log = pl.select(user_id=pl.int_range(6_000_000).hash() % 1000, item_id=1, timestamp=pl.int_range(6_000_000))
    engine.load(Log("log", table=log.to_arrow()), {}, False)
    spilled, read = 0, []
    for batch in engine.batches("SELECT user_id, ordinal FROM raw ORDER BY user_id, ordinal"):
        spilled = max(spilled, sum(file.stat().st_size for file in tmp_path.rglob("*")))
        read.append(pl.from_arrow(batch))
    engine.close()
    assert spilled > 1 << 20
    assert pl.concat(read).equals(log.select("user_id", ordinal=pl.int_range(pl.len())).sort("user_id", "ordinal"))


SMALL = """
import resource, sys
from sr_transformers.cli import main
import sr_transformers.data.prepare
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20,) * 2)
sys.exit(main(["prepare", sys.argv[2], "--output", sys.argv[3]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mebibytes", [60, 250])
def test_too_little_address_space_is_said_before_anything_crashes(tmp_path, mebibytes):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,a,3\n")
    command = [sys.executable, "-c", SMALL, str(mebibytes), str(tmp_path / "log.csv"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "MiB of address space more, and preparing takes up to 1024: raise the limit (ulimit -v)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_without_a_limit_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    DuckDBEngine(tmp_path).close()
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1 << 45, 1 << 45))
    DuckDBEngine(tmp_path).close()
