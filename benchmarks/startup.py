"""python benchmarks/startup.py: seconds from the start of a process to an import, a help text, a fit.

A bare interpreter's start is part of every time, and stands beside them in `measured`. Peers: the import that their own
examples begin with. `fits without torch` says whether torch was loaded by the import of the scaling fits.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from importlib.util import find_spec

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
FIT = "import sys, sr_transformers.scaling.fitting; print('torch' in sys.modules)"


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Wall seconds of one process, or why there is none."""
    environment, arguments = COMMANDS[name]
    python = sys.executable if environment is None else str(options.environments / environment / "bin" / "python")
    if not os.path.exists(python):
        return {"skipped": f"no {python}; run benchmarks/environments.py"}
    start = time.perf_counter()
    done = subprocess.run([*shlex.split(options.prefix), python, *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1][:300]}
    return {"seconds": seconds, "load": os.getloadavg()[0]}


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
        loaded = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=True)
        found["fits without torch"] = [{"value": loaded.stdout.strip() == "False"}]
    harness.save("startup", "start-up", rows, found, options)


if __name__ == "__main__":
    main()
