"""Completion in a shell, by the line that docs/index.md gives."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("shtab", reason="needs the extra completion")
PAGE = Path(__file__).parents[2] / "docs" / "index.md"


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_and_options(tmp_path):
    (line,) = re.findall(r"^shtab (.*) > ~/(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    command = [sys.executable, "-m", "shtab", *shlex.split(line[0])]
    script = tmp_path / "completion"
    with script.open("w") as output:
        subprocess.run(command, stdout=output, check=True, timeout=120)
    assert line[1].endswith("/completions/sr-transformers")  # where bash looks for it
    for words, found in (("pre", "prepare"), ("demo --t", "--titles"), ("data des", "describe")):
        asked = (
            f"source {shlex.quote(str(script))}; COMP_WORDS=(sr-transformers {words}); "
            "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _shtab_sr_transformers; echo ${COMPREPLY[@]}"
        )
        result = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60)
        assert result.stdout.split() == [found], result.stderr
