"""Every Python block of the pages in docs/ runs, block after block, in a folder that has what the page expects."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sr_transformers.data import synthetic
from sr_transformers.data.prepare import prepare

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, tmp_path):
    log = synthetic.generate(num_users=120, num_items=30, num_successors=3, mean_length=12)
    prepare(log, tmp_path / "prepared" / "events")
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks or "```python" not in page.read_text(encoding="utf-8")
    (tmp_path / "page.py").write_text("\n".join(blocks))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
