"""An item table divided over processes: the checks are in divided.py, which this starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_divided_table_does_what_a_whole_one_does_on_one_to_four_processes(tmp_path):
    script = str(Path(__file__).with_name("divided.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("agrees") == 1 + 2 + 3 + 4
