"""python benchmarks/quality.py: is fast also good? Validation loss and HR@10 after as many targets, ours and theirs.

The setting of `training.py` at d 64 and V 3.4k: each trains on so many targets with Adam at 1e-3, then the last item
but one of every user is ranked among all, seen items kept. The peers cut every user to the last 51 items; ours covers
whole histories.
"""

import harness
import logs

CASES = {"d 64, V 3.4k": "dense", "tiny": "tiny"}
PEERS = ("RePlay", "HF GPT-2")


def main() -> None:
    """Measures and writes results/quality.json."""
    parser = harness.parser(__doc__, list(CASES), PEERS)
    parser.set_defaults(case=["d 64, V 3.4k"], rounds=1, limit=300)
    parser.add_argument("--targets", type=int, default=1_000_000, help="to train on")
    options = parser.parse_args()
    for case in options.case:
        path = logs.log_path(CASES[case], options.work)
        settings = {
            "task": "quality",
            "log": str(path),
            "items": logs.SHAPES[CASES[case]].items,
            "width": 64,
            "layers": 2,
            "heads": 2,
            "window": logs.WINDOW,
            "sequences": 128,
            "targets_per_step": logs.targets_per_step(path, 128),
            "warmup": 1,
            "seconds": 0,
            "targets": options.targets,
        }
        print(case, flush=True)
        found = harness.rounds([*harness.OURS, *options.peers], settings, options)
        rows = []
        for metric, key, unit, higher in (("loss", "validation_loss", "nats", False), ("HR@10", "hr@10", "", True)):
            values = {name: harness.median(turns, key) for name, turns in found.items()}
            peers = {name: values[name] for name in options.peers}
            for name, way in harness.OURS.items():
                label = f"validation {metric} after {options.targets:,} targets, {way}"
                rows.append(harness.row(case, label, unit, values[name], peers, higher))
        harness.save("quality", case, rows, found, options)


if __name__ == "__main__":
    main()
