"""python benchmarks/startup.py: seconds from the start of a process to an import, a help text, a fit.

A bare interpreter's start is part of every time, and stands beside them in `measured`. Peers: the import that their own
examples begin with; none of them has a scaling fit, so that stands in `measured` alone, with whether it loaded torch.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import product

import harness

# name -> (environment; None is the one that runs this program, what python is told)
COMMANDS: dict[str, tuple[str | None, list[str]]] = {
    "python": (None, ["-c", "pass"]),
    "import sr_transformers": (None, ["-c", "import sr_transformers"]),
    "sr-transformers --help": (None, ["-m", "sr_transformers.cli", "--help"]),
    "RePlay": ("replay", ["-c", "from replay.nn.sequential import SasRec"]),
    "RecTools": ("rectools", ["-c", "from rectools.models import SASRecModel"]),
    "RecBole": ("recbole", ["-c", "from recbole.config import Config"]),
    "HF": (None, ["-c", "from transformers import GPT2LMHeadModel, Trainer"]),
}
FIT = (
    "import sys; from sr_transformers.cli import main; "
    "main(['scaling', 'fit', sys.argv[1], '--bootstrap', '0']); sys.exit(3 * ('torch' in sys.modules))"
)


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Wall seconds of one process, or why there is none."""
    environment, arguments = COMMANDS[name]
    python = sys.executable if environment is None else str(options.environments / environment / "bin" / "python")
    if not os.path.exists(python):
        return {"skipped": f"no environment {environment}; run benchmarks/environments.py"}
    start = time.perf_counter()
    done = subprocess.run([*shlex.split(options.prefix), python, *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1][:300]}
    return {"seconds": seconds, "load": os.getloadavg()[0]}


def fit(options: argparse.Namespace) -> dict[str, object]:
    """`sr-transformers scaling fit` on 16 points of a known law: wall seconds, and whether torch came along."""
    points = "".join(
        f"{n},{d},{1.8 + 400 / n**0.34 + 2000 / d**0.37}\n"
        for n, d in product((1e5, 1e6, 1e7, 1e8), (1e6, 1e7, 1e8, 1e9))
    )
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("N,D,loss\n" + points)
        file.flush()
        start = time.perf_counter()
        done = subprocess.run([*shlex.split(options.prefix), sys.executable, "-c", FIT, file.name], capture_output=True)
    if done.returncode not in (0, 3):
        return {"skipped": done.stderr.decode().strip().splitlines()[-1][:300]}
    return {"seconds": time.perf_counter() - start, "torch_loaded": done.returncode == 3}


def main() -> None:
    """Measures and writes results/startup.json."""
    parser = harness.parser(__doc__, ["start-up"], [])
    parser.set_defaults(rounds=7)
    options = parser.parse_args()
    found: dict[str, list[dict]] = {name: [] for name in COMMANDS}
    for _ in range(options.rounds + 1):  # the first finds files in no cache and does not count
        for name in COMMANDS:
            found[name].append(measure(name, options))
    found = {name: turns[1:] for name, turns in found.items()}
    seconds = {name: harness.median(turns, "seconds") for name, turns in found.items()}
    peers = {name: seconds[name] for name in ("RePlay", "RecTools", "RecBole", "HF")}
    rows = [harness.row("start-up", name, "s", seconds[name], peers, False, 3) for name in list(COMMANDS)[1:3]]
    if find_spec("sr_transformers.scaling") is not None:
        found["scaling fit"] = [fit(options) for _ in range(options.rounds)]
        print(f"scaling fit: {found['scaling fit'][-1]}")
    harness.save("startup", "start-up", rows, found, options)


if __name__ == "__main__":
    main()
