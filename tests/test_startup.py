"""Start-up costs milliseconds: neither the import nor `--help` loads torch, transformers or the data libraries."""

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "transformers", "datasets", "polars", "numpy", "scipy", "pyarrow")


def fastest(code: str, runs: int = 3) -> float:
    """Seconds of the fastest of some fresh processes."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize(
    "code",
    ["import sr_transformers", "from sr_transformers.cli import build_parser; build_parser().format_help()"],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded(code):
    check = f"import sys; {code}; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"


# Wanted: 0.2 and 0.5 s. The bounds are three times that, and above an empty process: machines differ and are shared.
def test_the_import_is_quick():
    assert fastest("import sr_transformers") - fastest("pass") < 0.6


def test_help_is_quick():
    code = "from sr_transformers.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert fastest(code) - fastest("pass") < 1.5
