"""python benchmarks/scaling_coverage.py: how often the 95 % intervals of scaling laws hold the truth.

Draws noisy points from a known law, fits and bootstraps them as `sr-transformers scaling fit` does, and counts the
intervals that hold the true parameter, a process a case. Writes benchmarks/results/scaling_coverage.json.
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
from sr_transformers.scaling.fitting import fit
from sr_transformers.scaling.laws import LAWS
from sr_transformers.scaling.points import points_from
from sr_transformers.scaling.uncertainty import bootstrap

JOINT = {"E": 1.82, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
SIZE = {"E": 4.5, "A": 6.0, "alpha": 0.25}
# name: law, truth, sizes, amounts of data, seeds of each, relative noise
CASES = {
    "n, 5 sizes x 3 seeds": ("n", SIZE, np.logspace(3.5, 7, 5), [1e6], 3, 0.005),
    "n, 8 sizes x 3 seeds": ("n", SIZE, np.logspace(3.5, 7, 8), [1e6], 3, 0.005),
    "joint, 5 sizes x 5 amounts": ("joint", JOINT, np.logspace(7.5, 10, 5), np.logspace(9, 11.5, 5), 1, 0.01),
    "joint, 8 sizes x 8 amounts": ("joint", JOINT, np.logspace(7.5, 10, 8), np.logspace(9, 11.5, 8), 1, 0.01),
}


def coverage(name: str, draws: int, refits: int) -> dict:
    """Share of the draws whose interval holds the truth, by parameter, and how many draws had no interval."""
    law, truth, sizes, data, seeds, noise = CASES[name]
    n, d = (np.tile(column.ravel(), seeds) for column in np.meshgrid(sizes, data))
    exact = LAWS[law].predict(truth, {"N": n, "D": d})
    rng = np.random.default_rng(1)
    held, without = [], 0
    for _ in range(draws):
        points = points_from({"N": n, "D": d, "loss": exact * np.exp(noise * rng.standard_normal(len(n)))})
        intervals = bootstrap(fit(law, points, starts=2), points, refits).intervals()
        if None in intervals.values():
            without += 1
            continue
        held.append([low <= truth[key] <= high for key, (low, high) in intervals.items()])  # type: ignore[misc]
    shares = dict(zip(truth, np.mean(held, axis=0).tolist(), strict=True))
    return {"draws": draws, "refits": refits, "noise": noise, "without_interval": without, "coverage": shares}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--refits", type=int, default=200)
    parser.add_argument("--results", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    result: dict = {"command": harness.command(sys.argv), "commit": source_commit(), "cases": {}}
    with ProcessPoolExecutor() as pool:
        running = {case: pool.submit(coverage, case, options.draws, options.refits) for case in CASES}
        for case, one in running.items():
            result["cases"][case] = one.result()
            print(case, result["cases"][case], flush=True)
    write_whole(options.results / "scaling_coverage.json", json.dumps(result, indent=2) + "\n")
