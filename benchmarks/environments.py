"""python benchmarks/environments.py [NAME ...]: makes a virtual environment for each peer from its pinned requirements.

Their pins contradict each other and ours, so each has its own, under benchmarks/.environments. GPT-2 and SASRec.pytorch
need nothing that ours lacks. About 2 GB each on a CPU build of torch.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in (HERE / "requirements").glob("*.txt")))


def main() -> None:
    """Makes what is missing; an environment that is there is brought to its requirements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default all)")
    parser.add_argument("--output", type=Path, default=HERE / ".environments")
    options = parser.parse_args()
    for name in options.names or NAMES:
        if name not in NAMES:
            parser.error(f"{name!r} has no requirements; choose from {', '.join(NAMES)}.")
        folder = options.output / name
        if not (folder / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / "requirements" / f"{name}.txt")], check=True)
        print(f"{name}: {folder}")


if __name__ == "__main__":
    main()
