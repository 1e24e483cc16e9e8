"""`sr-transformers tune`: what it prints, how it ends when it is interrupted, and what it says without Optuna."""

import subprocess
import sys

import pytest
from made_searches import SMALL

from sr_transformers.cli import main
from sr_transformers.tuning import trials

pytest.importorskip("matplotlib", reason="the search draws figures")
FIX = [f"{key}={value}" for key, value in SMALL.items()]


def test_a_search_prints_lines_the_table_and_what_was_written(markov_prepared, tmp_path, monkeypatch, capsys):
    begun = []
    monkeypatch.setattr(trials, "_time_for_one", lambda terms, study: begun.append(1) or len(begun) <= 2)
    output = str(tmp_path / "tuned")
    assert main(["tune", str(markov_prepared.path), "--output", output, "--budget", "1h", "--fix", *FIX]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["trial", "0", "1"]
    assert any(line.startswith("| lsrm tuned |") for line in lines)
    assert lines[-1] == f"written: {output}/report.md, recipe.yaml, tune.json and model/"
    assert main(["tune", str(markov_prepared.path), "--output", output, "--budget", "1h", "--fix", *FIX]) == 2
    assert "holds a finished search of 1h" in capsys.readouterr().err


def test_an_interrupted_search_says_that_nothing_is_lost(markov_prepared, tmp_path, monkeypatch, capfd):
    def press(terms, study):
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "_time_for_one", press)
    output = str(tmp_path / "tuned")
    assert main(["tune", str(markov_prepared.path), "--output", output, "--budget", "1h", "--fix", *FIX]) == 130
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert said == (
        f"sr-transformers tune: interrupted; nothing is lost: the same command goes on with the search in {output}."
    )


WITHOUT = "import sys; sys.modules['optuna'] = None; from sr_transformers.cli import main; sys.exit(main(sys.argv[1:]))"


def run_without_optuna(*words):
    return subprocess.run([sys.executable, "-c", WITHOUT, *words], capture_output=True, text=True, timeout=300)


def test_without_optuna_the_extra_is_named(markov_prepared, tmp_path):
    run = run_without_optuna("tune", str(markov_prepared.path), "--output", str(tmp_path / "x"), "--budget", "1h")
    assert run.returncode == 2
    assert "sr-transformers tune: the search needs Optuna: pip install 'sr-transformers[tune]'." in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_auto_needs_no_optuna(markov_prepared, tmp_path):
    more = ["--max_steps", "1", "--hidden_size", "16", "--disable_tqdm", "true", "--output", str(tmp_path / "run")]
    run = run_without_optuna("train", "auto", "--data", str(markov_prepared.path), *more)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("auto takes regimes/repeats, because users come back to items: ")
