"""python benchmarks/preparation.py: from a log in parquet to what training reads, ours and theirs.

Ours (`prepare`) sorts, checks every row, splits, counts, learns the vocabulary and writes whole histories. RePlay: its
splitter, data set and sequence tokenizer on Polars frames; writes nothing. RecTools: `fast_transformers.
build_sequences`, which keeps the last 51 items of every user, splits nothing and writes nothing. Polars by hand: what
somebody would write without any library; checks nothing. It has rows of its own, for it is no peer but a floor.
Logs are sorted by user, which spares most of the work, or by time, as they arrive.
"""

from pathlib import Path

import harness
import logs
import pyarrow.parquet as pq

CASES = {
    "1.0 M rows": "dense",
    "1.0 M rows, by time": "dense",
    "1.2 M rows, 240k items": "240k-short",
    "18.5 M rows": "20m",
    "18.5 M rows, by time": "20m",
    "tiny": "tiny",
}
BY_HAND = "Polars by hand"
PEERS = ("RePlay", "RecTools", BY_HAND)


def by_time(log: Path) -> Path:
    """The same rows in the order of time, made on first use; rows that tie keep their order."""
    path = log.with_name(f"{log.stem}-by-time.parquet")
    if not path.exists():
        part = path.with_suffix(".part")
        pq.write_table(pq.read_table(log).sort_by("timestamp"), part)
        part.rename(path)
    return path


def main() -> None:
    """Measures case by case; each goes into results/preparation.json when it is done."""
    parser = harness.parser(__doc__, list(CASES), PEERS)
    parser.set_defaults(case=[case for case in CASES if case != "tiny"])
    options = parser.parse_args()
    for case in options.case:
        log = logs.log_path(CASES[case], options.work)
        log = by_time(log) if "by time" in case else log
        settings = {"task": "preparation", "log": str(log), "window": logs.WINDOW}
        print(case, flush=True)
        found = harness.rounds(["ours", *options.peers], settings, options)
        rows = []
        for metric, key, unit in (("preparation", "seconds", "s"), ("peak memory of preparation", "peak_gib", "GiB")):
            values = {name: harness.median(turns, key) for name, turns in found.items()}
            ours = values.pop("ours")
            hand = {BY_HAND: values.pop(BY_HAND)} if BY_HAND in values else {}
            rows.append(harness.row(case, metric, unit, ours, values, False, 3))
            if hand:
                rows.append(harness.row(case, f"{metric}, against Polars by hand", unit, ours, hand, False, 3))
        harness.save("preparation", case, rows, found, options)


if __name__ == "__main__":
    main()
