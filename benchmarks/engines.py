"""python benchmarks/engines.py: which engine does the heavy part of a preparation, DuckDB or Polars' streaming engine?

The part that grows with the log, as `cleaning.py` has it: the ids' places in the sorted lists of ids, both joins,
the histories' lengths, and all rows by user, time and place in the file. Each engine may spill to disk; DuckDB's memory
is limited to 800 MB. Processes take turns; medians over rounds of wall time, CPU time and peak memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import harness
import logs
import polars as pl

ENGINES = ("DuckDB", "Polars streaming")
CASES = {"1.0 M rows": "dense", "18.5 M rows": "20m", "tiny": "tiny"}


def with_duckdb(log: str, folder: str) -> int:
    """Rows that came out."""
    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '800MB'; SET temp_directory = '{folder}'")
    raw = f"(SELECT *, file_row_number AS ordinal FROM read_parquet('{log}', file_row_number = true))"
    for name in ("user_id", "item_id"):
        connection.execute(
            f"CREATE TABLE {name} AS SELECT id, CAST(row_number() OVER (ORDER BY id) - 1 AS INT) AS code "
            f"FROM (SELECT DISTINCT {name} AS id FROM {raw})"
        )
    connection.execute(
        f"CREATE TABLE log AS SELECT u.code AS u, i.code AS i, timestamp, ordinal FROM {raw} AS r "
        "JOIN user_id AS u ON r.user_id = u.id JOIN item_id AS i ON r.item_id = i.id"
    )
    connection.execute("SELECT u, count(*) FROM log GROUP BY u ORDER BY u").fetchnumpy()
    answer = connection.sql("SELECT i, timestamp FROM log ORDER BY u, timestamp, ordinal").to_arrow_reader(1 << 20)
    return sum(len(batch) for batch in answer)


def with_polars(log: str, folder: str) -> int:
    """Rows that came out; the streaming engine hands sorted rows over as a file."""
    raw = pl.scan_parquet(log).with_row_index("ordinal")
    codes = {}
    for name, code in (("user_id", "u"), ("item_id", "i")):
        codes[name] = raw.select(name).unique().sort(name).with_row_index(code).collect(engine="streaming").lazy()
    joined = raw.join(codes["user_id"], on="user_id").join(codes["item_id"], on="item_id")
    joined.group_by("u").len().collect(engine="streaming")
    rows = joined.sort("u", "timestamp", "ordinal").select("i", "timestamp")
    rows.sink_ipc(Path(folder) / "sorted.arrow", engine="streaming")
    return pl.scan_ipc(Path(folder) / "sorted.arrow").select(pl.len()).collect().item()


def work(engine: str, log: str) -> None:
    """One turn, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = {"DuckDB": with_duckdb, "Polars streaming": with_polars}[engine](log, folder)
        seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "rows": rows,
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_gib": peak_memory(),
    }
    print(harness.MARK + json.dumps(result))


def peak_memory() -> float:
    """GiB that this program has held at most; `ru_maxrss` also counts the process that started it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 2**20


def main() -> None:
    """Measures case by case; each goes into results/engines.json when it is done."""
    if len(sys.argv) == 4 and sys.argv[1] == "--worker":
        work(*sys.argv[2:])
        return
    parser = harness.parser(__doc__, list(CASES), ())
    parser.set_defaults(case=[case for case in CASES if case != "tiny"])
    options = parser.parse_args()
    for case in options.case:
        log = logs.log_path(CASES[case], options.work)
        found: dict[str, list[dict]] = {engine: [] for engine in ENGINES}
        for _ in range(options.rounds):
            for engine, turns in found.items():
                words = [*options.prefix.split(), sys.executable, __file__, "--worker", engine, str(log)]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                turns.append(json.loads(done.stdout.splitlines()[-1].removeprefix(harness.MARK)))
                print(case, engine, turns[-1], flush=True)
        rows = []
        for metric, key, unit in (
            ("sorted histories", "seconds", "s"),
            ("CPU time of sorted histories", "cpu_seconds", "s"),
            ("peak memory of sorted histories", "peak_gib", "GiB"),
        ):
            ours, other = (harness.median(found[engine], key) for engine in ENGINES)
            assert ours is not None
            rows.append(harness.row(case, metric, unit, ours, {ENGINES[1]: other}, False, 3))
        harness.save("engines", case, rows, found, options)


if __name__ == "__main__":
    main()
