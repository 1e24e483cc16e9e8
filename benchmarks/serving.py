"""python benchmarks/serving.py: one history -> the ten best items, and batches of 256, ours and theirs.

Ours through the documented calls, `Recommender.recommend` and `recommend_batch`: raw item ids in, raw item ids and
probabilities out. RePlay and SASRec.pytorch: the raw module, item numbers in and out; GPT-2: a call by hand, likewise;
RecTools: `recommend`. Histories of 50 items, seen items removed, models of two layers and d 64.
"""

import harness
import logs

CASES = {"V 3.4k": "dense", "V 26k": "26k", "V 240k": "240k", "tiny": "tiny"}
PEERS = ("RePlay", "HF GPT-2", "RecTools", "SASRec.pytorch")


def main() -> None:
    """Measures case by case; each goes into results/serving.json when it is done."""
    parser = harness.parser(__doc__, list(CASES), PEERS)
    parser.set_defaults(case=[case for case in CASES if case != "tiny"], seconds=5)
    parser.add_argument("--calls", type=int, default=500, help="timed calls of one history")
    options = parser.parse_args()
    for case in options.case:
        log = CASES[case]
        settings = {
            "task": "serving",
            "log": str(logs.log_path(log, options.work)),
            "items": logs.SHAPES[log].items,
            "width": 64,
            "layers": 2,
            "heads": 2,
            "window": logs.WINDOW,
            "sequences": 128,
            "batch": 256,
            "seconds": options.seconds,
            "calls": options.calls,
            "warmup_calls": min(50, options.calls),
        }
        print(case, flush=True)
        found = harness.rounds(["ours", *options.peers], settings, options)
        rows = []
        for metric, prefix, key, unit, higher in (
            ("one history, p50", "", "p50_ms", "ms", False),
            ("one history, p99", "", "p99_ms", "ms", False),
            ("one history, compiled, p50", "compiled_", "p50_ms", "ms", False),
            ("one history, compiled, p99", "compiled_", "p99_ms", "ms", False),
            ("batches of 256", "", "batched_users_per_second", "users/s", True),
            ("batches of 256, compiled in bf16", "compiled_", "batched_users_per_second", "users/s", True),
        ):
            ours = harness.median(found["ours"], prefix + key)
            peers = {name: harness.median(found[name], key) for name in options.peers}
            rows.append(harness.row(case, metric, unit, ours, peers, higher))
        harness.save("serving", case, rows, found, options)


if __name__ == "__main__":
    main()
