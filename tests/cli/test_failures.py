"""The last net of the command line: every failure is a line and an exit code, whatever library it comes from."""

import argparse
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import httpx2
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import safetensors
import safetensors.torch
import torch
import yaml
from tqdm import tqdm

from sr_transformers.cli import failures, main, recommend
from sr_transformers.training.yaml_reader import parse_yaml

RECOMMEND = ["recommend", "--model", "m", "--history", "i1"]


@pytest.fixture
def failing(monkeypatch, capsys):
    """Runs a command that ends in what a function raises; returns the exit code and what stood on stderr."""

    def failing(raises):
        monkeypatch.setattr(recommend, "_recommend", lambda options, rest: raises())
        return main(RECOMMEND), capsys.readouterr().err

    return failing


def refuse(error):
    raise error


def load_bytes(tmp_path, name, read):
    (tmp_path / name).write_bytes(b"abc")
    return read(tmp_path / name)


@pytest.mark.parametrize(
    ("raises", "message"),
    [
        (lambda _: torch.empty(10**15), r"there is not enough memory: .*tried to allocate 4000000000000000 bytes"),
        (lambda _: refuse(torch.OutOfMemoryError("CUDA out of memory.")), "there is not enough memory: CUDA out of"),
        (lambda _: np.empty(10**15), "there is not enough memory: Unable to allocate 7.11 PiB .*Make the model"),
        (lambda _: bytearray(10**16), "there is not enough memory: no more is known"),
        (
            lambda folder: load_bytes(folder, "a.safetensors", lambda path: safetensors.safe_open(path, "pt")),
            r"a file of weights is damaged or cut \(safetensors\); copy or make it again: Error while deserializing",
        ),
        (lambda _: pickle.loads(b"abc"), "a file is damaged, or holds more than numbers"),
        (lambda _: yaml.safe_load("["), "a YAML file cannot be read: while parsing"),
        (lambda _: json.loads("["), "a JSON file is damaged or cut: Expecting value"),
        (lambda _: json.loads("[" * 10**5), "the input is nested too deeply"),
        (lambda _: b"\xff".decode(), "a text is not in UTF-8; save it as UTF-8: "),
        (lambda folder: load_bytes(folder, "a.parquet", pl.read_parquet), "a table cannot be read: parquet: File out"),
        (lambda _: pa.ipc.open_stream(b"abc"), "an Arrow or Parquet table cannot be read: Corrupted message"),
        (lambda _: duckdb.sql("select x"), "a table cannot be read: Binder Error"),
        (lambda _: refuse(httpx2.TooManyRedirects("20 of them")), "the network or the server failed; .*20 of them"),
        (lambda _: int("x"), r"invalid literal for int.*\(ValueError; SR_TRANSFORMERS_TRACEBACK=1 shows where\)"),
        (
            lambda _: Path("/nowhere/x").read_text(),
            r"^sr-transformers recommend: /nowhere/x: No such file or directory$",
        ),
        (lambda _: parse_yaml("[", "--x"), r"^sr-transformers recommend: --x: this is no YAML: [^()]*the end\.$"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_code_2(failing, tmp_path, raises, message):
    code, words = failing(lambda: raises(tmp_path))
    assert code == 2
    assert re.search(message, words.strip())
    assert words.count("\n") == 1


def test_a_fault_of_the_program_is_code_1_and_keeps_the_traceback(failing):
    code, words = failing(lambda: {}["counts"])
    assert code == 1
    assert words.count("\n") == 1
    found = re.search(r"unexpected KeyError: 'counts'\. .* please report it .* traceback in (\S+\.txt)\.", words)
    kept = Path(found[1]).read_text()
    os.remove(found[1])
    assert "Traceback (most recent call last)" in kept
    assert 'lambda: {}["counts"]' in kept


def test_the_traceback_is_shown_on_demand(failing, monkeypatch):
    monkeypatch.setenv(failures.TRACEBACK, "1")
    for raises in (lambda: int("x"), lambda: {}["counts"]):
        _, words = failing(raises)
        assert "Traceback (most recent call last)" in words
        assert words.strip().splitlines()[-1].startswith("sr-transformers recommend: ")


def test_endless_messages_are_cut(failing):
    code, words = failing(lambda: refuse(ValueError("x" * 10**6)))
    assert code == 2
    assert len(words) < 2000


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(torch.zeros(10**6), path),
        lambda path: safetensors.torch.save_file({"a": torch.zeros(10**6)}, path),
        lambda path: path.write_bytes(bytes(10**6)),
        lambda path: refuse(OSError(28, "No space left on device", str(path))),
    ],
    ids=["torch", "safetensors", "bytes", "errno"],
)
def test_a_full_disk_is_named_with_the_folder(tmp_path, write):
    options = argparse.Namespace(command="train", output=f"{tmp_path}/run", go_on="the same command goes on.")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        write(tmp_path / "run.bin")
    except Exception as error:
        code, words = failures.explain(error, options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert words.startswith(f"no room is left on the disk of {tmp_path}/run")
    assert words.endswith("Make room; the same command goes on.")


def program(code, stop=None, **how):
    """A command line in a process of its own, its command replaced; `stop` is called with it when it says "now"."""
    script = [
        "import sys, time",
        "from sr_transformers.cli import main, prepare",
        "def now(): print('now', flush=True)",
        "def command(options, rest):",
        textwrap.indent(code, "    "),
        "prepare._prepare = command",
        "sys.exit(main(['prepare', 'log.csv', '--output', 'o']))",
    ]
    process = subprocess.Popen([sys.executable, "-c", "\n".join(script)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, **how)  # fmt: skip
    assert process.stdout.readline() == "now\n"
    if stop:
        stop(process)
    _, words = process.communicate(timeout=60)
    return process.returncode, words


INTERRUPTED = "sr-transformers prepare: interrupted; o was not made; the same command begins anew.\n"


@pytest.mark.parametrize(
    ("code", "presses"),
    [
        ("now(); time.sleep(60)", 1),
        ("try: now(); time.sleep(60)\nfinally: now(); time.sleep(60)", 2),  # while cleaning up
        (
            "try: now(); time.sleep(60)\nexcept KeyboardInterrupt: raise RuntimeError('query stopped')",
            1,
        ),  # a library's way
        ("try: now(); time.sleep(60)\nexcept KeyboardInterrupt: pass", 1),
        (  # the interpreter's own end
            "import atexit\n@atexit.register\ndef end():\n    now(); time.sleep(60)\nnow(); time.sleep(60)",
            2,
        ),
    ],
    ids=["once", "twice", "turned into another error", "swallowed", "at the end"],
)
def test_ctrl_c_ends_with_one_line_and_130(code, presses):
    def press(process):
        process.send_signal(signal.SIGINT)
        if presses == 2:
            assert process.stdout.readline() == "now\n"
            process.send_signal(signal.SIGINT)

    assert program(code, press) == (130, INTERRUPTED)


def test_ctrl_c_while_a_module_is_imported(tmp_path):
    """A library in C++ that imports a module may not expect that this raises, and aborts the process."""
    (tmp_path / "slow_module.py").write_text(
        "import time\nprint('now', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: import os; os.abort()\n"
    )

    def press(process):
        process.send_signal(signal.SIGINT)

    assert program(f"sys.path.append({str(tmp_path)!r}); import slow_module", press) == (130, INTERRUPTED)


def test_ctrl_c_of_a_terminal_while_workers_start(tmp_path):
    """It goes to every process of the group; what a worker imports at that time is not the user's concern."""
    (tmp_path / "slow_module.py").write_text(
        "import time\nfrom sr_transformers.scaling.studies.workers import begin_worker\n"
        "print('now', flush=True)\ntime.sleep(1)\nbegin = begin_worker\n"
    )
    code = (
        f"sys.path.append({str(tmp_path)!r})\n"
        "import lazy\nfrom sr_transformers.scaling.studies.workers import pool_of\n"
        "with pool_of(2, lazy.begin, 1) as pool: pool.submit(time.sleep, 60).result()"
    )
    (tmp_path / "lazy.py").write_text("def begin(*some):\n    import slow_module\n    slow_module.begin(*some)\n")

    def press(process):
        os.killpg(process.pid, signal.SIGINT)

    assert program(code, press, start_new_session=True) == (130, INTERRUPTED)


def test_a_command_started_with_ctrl_c_ignored_goes_on():
    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def press(process):
        process.send_signal(signal.SIGINT)

    assert program("now(); time.sleep(0.3)", press, preexec_fn=ignore) == (0, "")


def test_a_reader_that_goes_away_is_no_failure_to_tell():
    def leave(process):
        process.stdout.close()
        process.stdout = None

    assert program("now(); time.sleep(0.3); print('x' * 10**6)", leave) == (141, "")


def test_bars_end_before_the_message(failing):
    bars = []

    def work():
        bars.append(tqdm(total=10))
        bars[0].update(3)
        raise ValueError("no more")

    code, words = failing(work)
    assert code == 2
    assert words.splitlines()[-1].startswith("sr-transformers recommend: no more")
