"""python benchmarks/evaluation.py: full ranking of all users, ours and theirs, in users per second.

Leave-one-out: the target of every user among the whole catalogue, items of the user's own history removed, models of
two layers and d 64 (fresh weights: they do not change the speed). Ours computes HR, NDCG, MRR, coverage and the loss
through `evaluate`, in float32, with the layers in bfloat16, and with these compiled (timed after the compiler is done:
`compile_seconds` stands in the results); RePlay recall and NDCG through its metrics callback;
RecTools lists ten items for everyone with `recommend` and counts hits; for GPT-2 and SASRec.pytorch a loop by hand that
also counts hits among ten.
"""

import harness
import logs

CASES = {"V 3.4k": "dense", "V 26k": "26k", "V 240k": "240k", "tiny": "tiny"}
PEERS = ("RePlay", "HF GPT-2", "RecTools", "RecBole", "SASRec.pytorch")


def main() -> None:
    """Measures case by case; each goes into results/evaluation.json when it is done."""
    parser = harness.parser(__doc__, list(CASES), PEERS)
    parser.set_defaults(case=[case for case in CASES if case != "tiny"])
    options = parser.parse_args()
    for case in options.case:
        log = CASES[case]
        settings = {
            "task": "evaluation",
            "log": str(logs.log_path(log, options.work)),
            "items": logs.SHAPES[log].items,
            "width": 64,
            "layers": 2,
            "heads": 2,
            "window": logs.WINDOW,
            "sequences": 128,
        }
        print(case, flush=True)
        found = harness.rounds([*harness.OURS, *options.peers], settings, options)
        rows = []
        for metric, key, unit, higher, who in (
            ("full ranking, fp32", "users_per_second", "users/s", True, "ours"),
            ("full ranking, layers in bf16", "users_per_second", "users/s", True, "ours bf16"),
            ("full ranking, layers compiled in bf16", "users_per_second", "users/s", True, "ours compiled"),
            ("peak memory of evaluation", "peak_gib", "GiB", False, "ours"),
        ):
            values = {name: harness.median(turns, key) for name, turns in found.items()}
            ours = values[who]
            peers = {name: values[name] for name in options.peers}
            rows.append(harness.row(case, metric, unit, ours, peers, higher))
        harness.save("evaluation", case, rows, found, options)


if __name__ == "__main__":
    main()
