"""python benchmarks/scaling_coverage.py: how often the 95 % intervals of scaling laws hold the truth.

Draws noisy points from a known law, fits and bootstraps them as `sr-transformers scaling fit` does, and counts the
intervals that hold the true parameter: three times 200 draws, each time with another seed, because 200 alone leave the
share open by 3 percent to either side. Writes benchmarks/results/scaling_coverage.json.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import harness
import numpy as np

from sr_transformers.records import source_commit, write_whole
from sr_transformers.scaling.laws.bootstrap import bootstrap
from sr_transformers.scaling.laws.fitting import fit
from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.points import points_from

JOINT = {"E": 1.82, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
SIZE = {"E": 4.5, "A": 6.0, "alpha": 0.25}
# name: law, truth, sizes, amounts of data, seeds of each, relative noise
CASES = {
    "n, 5 sizes x 3 seeds": ("n", SIZE, np.logspace(3.5, 7, 5), [1e6], 3, 0.005),
    "n, 8 sizes x 3 seeds": ("n", SIZE, np.logspace(3.5, 7, 8), [1e6], 3, 0.005),
    "joint, 5 sizes x 5 amounts": ("joint", JOINT, np.logspace(7.5, 10, 5), np.logspace(9, 11.5, 5), 1, 0.01),
    "joint, 8 sizes x 8 amounts": ("joint", JOINT, np.logspace(7.5, 10, 8), np.logspace(9, 11.5, 8), 1, 0.01),
}


def held(name: str, draws: int, refits: int, seed: int) -> list[dict[str, bool] | None]:
    """Of every draw, which parameters' intervals hold the truth; None where it has no interval."""
    law, truth, sizes, data, seeds, noise = CASES[name]
    n, d = (np.tile(column.ravel(), seeds) for column in np.meshgrid(sizes, data))
    exact = LAWS[law].predict(truth, {"N": n, "D": d})
    rng = np.random.default_rng(seed)
    found: list[dict[str, bool] | None] = []
    for _ in range(draws):
        points = points_from({"N": n, "D": d, "loss": exact * np.exp(noise * rng.standard_normal(len(n)))})
        intervals = bootstrap(fit(law, points, starts=2), points, refits).intervals()
        if None in intervals.values():
            found.append(None)
        else:
            found.append({key: low <= truth[key] <= high for key, (low, high) in intervals.items()})  # type: ignore[misc]
    return found


def shares(found: list[dict[str, bool] | None]) -> dict[str, float]:
    """Of the draws with intervals, the share whose interval holds the truth, by parameter."""
    having = [one for one in found if one is not None]
    return {key: float(np.mean([one[key] for one in having])) for key in having[0]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--refits", type=int, default=200)
    parser.add_argument("--results", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    result: dict = {"command": harness.command(sys.argv), "commit": source_commit(), "cases": {}}
    with ProcessPoolExecutor() as pool:
        running = {
            case: [pool.submit(held, case, options.draws, options.refits, seed) for seed in range(1, options.seeds + 1)]
            for case in CASES
        }
        for case, parts in running.items():
            by_seed = [part.result() for part in parts]
            together = [one for part in by_seed for one in part]
            result["cases"][case] = {
                "draws": options.draws,
                "seeds": options.seeds,
                "refits": options.refits,
                "noise": CASES[case][-1],
                "without_interval": together.count(None),
                "coverage": shares(together),
                "coverage_by_seed": [shares(part) for part in by_seed],
            }
            print(case, result["cases"][case], flush=True)
    write_whole(options.results / "scaling_coverage.json", json.dumps(result, indent=2) + "\n")
