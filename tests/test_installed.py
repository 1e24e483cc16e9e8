"""Installed, not cloned: the wheel, in a folder of its own, goes from a CSV to recommendations and to a page."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import polars as pl
import pytest

from sr_transformers.data.logs import synthetic
from sr_transformers.recipe_files import recipe_names

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a command beside events.csv with the wheel's package and no other."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-index", "--no-deps"]
    subprocess.run([*pip, "wheel", *alone, "--no-build-isolation", "-w", folder / "wheel", ROOT], check=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    subprocess.run([*pip, "install", *alone, "--target", folder / "site", wheel], check=True)
    log = synthetic.generate(num_users=60, num_items=12, num_successors=2, mean_length=10)
    names = {"user_id": "customer", "item_id": "sku", "timestamp": "time"}
    work = folder / "work"
    work.mkdir()
    log.with_columns(pl.format("sku-{}", "item_id").alias("item_id")).rename(names).write_csv(work / "events.csv")
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}

    def start(*words):
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=work,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(*words):
        process = start(*words)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        return output

    run.start, run.site = start, folder / "site"
    return run


def test_the_package_is_the_wheels_and_holds_the_recipes(installed):
    assert str(installed.site) in installed("-c", "import sr_transformers; print(sr_transformers.__file__)")
    listed = installed("-m", "sr_transformers.cli", "recipes")
    assert [line.split()[0] for line in listed.splitlines()] == recipe_names()
    shown = installed("-m", "sr_transformers.cli", "recipes", "show", "lsrm/98k")
    assert shown == (ROOT / "recipes/lsrm/98k.yaml").read_text()


def test_from_a_csv_to_recommendations_and_a_page(installed):
    first = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    output = installed("-c", first)
    assert re.search(r"^sku-\d+ 0\.\d+", output, flags=re.MULTILINE)
    command = ("-m", "sr_transformers.cli")
    train = ("train", "98k", "--data", "prepared/events", "--output", "runs/98k", "--max_steps", "2")
    installed(*command, *train)
    listed = installed(*command, "recommend", "--model", "runs/98k", "--history", "sku-1", "sku-7", "-k", "3")
    assert len(re.findall(r"^ +[123]  sku-\d+  0\.\d+$", listed, flags=re.MULTILINE)) == 3
    page = installed.start(*command, "demo", "runs/events", "--port", str(free_port()))
    try:
        assert "Next items: " in fetched(f"http://127.0.0.1:{page.args[-1]}/")
    finally:
        page.terminate()
        page.communicate(timeout=60)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetched(address, seconds=120):
    for _ in range(seconds):
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            time.sleep(1)
    raise TimeoutError(address)
