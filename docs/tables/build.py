"""python docs/tables/build.py: runs every script that writes tables, cards and pictures from the records; no training.

Afterwards `git diff` shows what records and pages did not agree on.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    *(f"docs/tables/{name}.py" for name in ("models", "tasks", "scaling", "advice", "cards", "baselines", "speed")),
    "recipes/experiments/transfer.py table",
    "recipes/experiments/preferences.py table",
    "recipes/experiments/last_baskets.py table",
    "recipes/experiments/arms.py table",
    "benchmarks/quantization.py --table",
)


def main() -> None:
    """Ends with the first script that fails."""
    for script in SCRIPTS:
        print(script, flush=True)
        subprocess.run([sys.executable, *script.split()], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
