import polars as pl
import pytest

from sr_transformers.data.engine import DuckDBEngine
from sr_transformers.data.sources import Log, find_log


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
