"""Bad inputs, in tables: each ends soon, with one message that names what to mend, and leaves everything as it was.

A row (`bad_inputs/row.py`) says what is damaged, which command meets it and what has to be said. Commands run in forks
of one warm process (`warm.py`), a fraction of a second each.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest
from bad_inputs import flags, folders, logs, models, others, recipes, resume, searches, studies
from bad_inputs.row import Row
from warm import Warm

TABLES = (recipes, flags, folders, logs, models, resume, studies, searches, others)
ROWS = [row for table in TABLES for row in table.ROWS]

SOUND = {"DATA": "data", "RUN": "run", "RECIPE": "recipe.yaml", "LOG": "log.csv"}
USERS, ITEMS, LENGTH = 60, 40, 12
RECIPE = """
model: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 8}
training:
  {per_device_train_batch_size: 8, max_steps: 60, eval_strategy: steps, eval_steps: 20, save_strategy: steps,
   save_steps: 20, save_total_limit: 5, switch_optimizer: false, patience: 9, warmup_steps: 5,
   disable_tqdm: true, seed: 1}
"""


@pytest.fixture(scope="session")
def base(warm, tmp_path_factory):
    """recipe.yaml, log.csv, data, run, and stopped: the run as it was after 40 of its 60 steps."""
    base = tmp_path_factory.mktemp("sound")
    rows = [
        f"u{user},i{(user * 7 + step * step) % ITEMS},{step + 1}" for user in range(USERS) for step in range(LENGTH)
    ]
    (base / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    (base / "recipe.yaml").write_text(RECIPE)
    for command in ("prepare log.csv --output data", "train recipe.yaml --data data --output run"):
        code, out, err = warm.run(command.split(), base)
        assert code == 0, out + err
    shutil.copytree(base / "run", base / "stopped")
    for path in (base / "stopped").iterdir():
        if path.name == "checkpoint-60":
            shutil.rmtree(path)
        elif path.is_file() and path.name != "settings.json":
            path.unlink()
    before = snapshot(base)
    yield base
    assert snapshot(base) == before, "a row changed what all rows share"


def snapshot(folder):
    """Everything below a folder: kind and content by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "special"
    return found


def run_row(row: Row, base: Path, here: Path, warm: Warm):
    """Lays out the row's folder, runs its command, and returns all that can be judged."""
    words = row.command.split()
    names = {name: str(base / file) for name, file in SOUND.items()}

    def run(command):
        argv = [re.sub(rf"\b({'|'.join(SOUND)})\b", lambda found: names[found[0]], word) for word in command.split()]
        return warm.run(argv, here, row.seconds, row.room)

    for copy, source in (("d", "data"), ("m", "run"), ("s", "stopped")):
        if any(word == copy or word.startswith(f"{copy}/") for word in words):
            shutil.copytree(base / source, here / copy)
    if row.damage is not None:
        row.damage(here)
    if row.first:
        assert run(row.first)[0] == 2
    before = snapshot(here)
    code, out, err = run(row.command)
    return code, out, err, before, snapshot(here)


def problems(row: Row, code, out, err, before, after) -> list[str]:
    """What is wrong with how a row ended."""
    found = [] if code == row.code else [f"exit code {code}, not {row.code}"]
    if "Traceback (most recent call last)" in out + err:
        found.append("a traceback")
    said = [line for line in err.splitlines() if line.startswith("sr-transformers")]
    if row.code and len(said) != 1:
        found.append(f"{len(said)} messages")
    if not re.search(row.says, "\n".join(said) if row.code else out + err):
        found.append(f"does not say /{row.says}/")
    if any(len(line) > 2000 for line in said):
        found.append("a message without end")
    new = [name for name in after if name not in before and not name.startswith(row.makes or "\0")]
    if new:
        found.append(f"left behind: {', '.join(new[:5])}")
    changed = [name for name in before if after.get(name) != before[name] and not name.startswith(row.makes or "\0")]
    if changed:
        found.append(f"changed: {', '.join(changed[:5])}")
    return found


def test_the_rows_have_names_of_their_own():
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert len(ROWS) >= 200


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_bad_input_ends_in_a_message(row, base, warm, tmp_path):
    code, out, err, before, after = run_row(row, base, tmp_path, warm)
    found = problems(row, code, out, err, before, after)
    assert not found, f"{row.id} {row.what}: {'; '.join(found)}\n{row.command}\n{out[-500:]}\n{err[-1500:]}"
