"""Everything that a run, a publication, an export and a Space write or send is searched for a token, the home folder
and the user's name. All of it is done as a user would: by the commands, with absolute paths, in a home of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sr_transformers

pytest.importorskip("gradio", reason="needs the extra demo")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
pytest.importorskip("matplotlib", reason="needs the extra figures")
pytest.importorskip("optuna", reason="needs the extra tune")

USER = "zaphod-beeblebrox"
TOKEN = "hf_dummySECRETtoken01234"
RECIPE = """
model: {hidden_size: 16, num_hidden_layers: 1, max_position_embeddings: 8}
training: {max_steps: 28, per_device_train_batch_size: 2, learning_rate: 1e-2, precision: fp32, disable_tqdm: true}
"""
STUDY = """
name: tiny
data: HOME/work/data
recipe: HOME/plain.yaml
sizes: {a: [1, 8, 1], b: [1, 16, 1], c: [1, 24, 1], d: [1, 32, 1]}
blocks:
  main: {sizes: [a, b, c, d], epochs: [1], seeds: [1]}
"""
COMMANDS = """
import os, sys
from sr_transformers.cli import main

home, token = os.path.expanduser("~"), os.environ["HF_TOKEN"]

def do(*words):
    sys.argv = ["/opt/bin/sr-transformers", *words]
    assert main(words) == 0, words

work = f"{home}/work"
data, run, tuned = f"{work}/data", f"{work}/run", f"{work}/tuned"
do("prepare", f"{home}/logs/log.csv", "--output", data)
do("train", f"{home}/tiny.yaml", "--data", data, "--output", run, "--hub_token", token, "--profile", f"{work}/profile")
do("finetune", f"{home}/token.yaml", "--model", run, f"--data={data}", "--output", tuned)
do("evaluate", "--model", run, "--model", "tuned", "--data", data, "--json", f"{run}/evaluation.json")
do("tasks", "--model", run, "--model", f"two={run},{run}", "--data", data, "--task", "long_tail", "--draws", "3",
   "--json", f"{run}/tasks.json", "--figures", f"{run}/figures")
do("publish", run, "org/run", "--dry-run", "--output", f"{work}/dry")
do("publish", run, "org/run")
do("export", "--model", run, "--output", f"{work}/onnx", "-k", "5")
do("data", "describe", f"{home}/logs/log.csv", "--json", f"{work}/described.json")
do("compare", f"x={run}", tuned, "--data", data, "--json", f"{work}/compared.json", "--figures", f"{work}/compared")
do("recommend", "--model", run, "--data", data, "--output", f"{work}/lists.parquet")
do("scaling", "run", f"{home}/study.yaml", "--output", f"{work}/study")
do("scaling", "report", f"{work}/study", "--output", f"{work}/report", "--bootstrap", "2")
do("scaling", "fit", f"{work}/study", "--law", "n", "--bootstrap", "2", "--json", f"{work}/fit.json")
do("scaling", "sample", "--model", run, "--data", data, "--interactions", "200", "--output", f"{work}/sampled")
do("tune", f"{home}/logs/log.csv", "--output", f"{work}/search", "--budget", "40s", "--fix", "num_hidden_layers=1",
   "hidden_size=16", "history=[]", "num_train_epochs=1")
do("demo", run, "--compare", tuned, "--study", f"{run}/figures", "--space", f"{work}/space")
os.chdir("/")  # from here the home folder lies below
do("publish", tuned, "org/tuned")
do("train", f"{home}/tiny.yaml", "--data", data, "--output", f"{work}/pushed", "--push_to_hub", "true",
   "--hub_model_id", "org/pushed", f"--hub_token={token}")
"""


def found(name, content, needles):
    """The needles in a file, with what stands around them."""
    return [
        (name, content[max(0, (at := content.find(needle)) - 60) : at + 90])
        for needle in map(str.encode, needles)
        if needle in content
    ]


def test_no_token_no_home_and_no_name_in_anything_written_or_sent(hub, tmp_path):
    hub.users[TOKEN] = {"org"}
    home = tmp_path / "home" / USER
    for name in ("logs", "work", "tmp"):
        (home / name).mkdir(parents=True)
    rows = [f"u{user},i{(user * 7 + n * n) % 30},{n}" for user in range(150) for n in range(10)]
    (home / "logs" / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    (home / "tiny.yaml").write_text(RECIPE)
    (home / "token.yaml").write_text(RECIPE.replace("{max_steps", f"{{hub_token: {TOKEN}, max_steps"))
    (home / "plain.yaml").write_text(RECIPE.replace("max_steps: 28, ", ""))
    (home / "study.yaml").write_text(STUDY.replace("HOME", str(home)))
    given = set(home.rglob("*"))
    source = str(Path(sr_transformers.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST_"))}
    environment |= {"HOME": str(home), "USER": USER, "LOGNAME": USER, "TMPDIR": str(home / "tmp"), "HF_TOKEN": TOKEN}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS], cwd=home / "work", env=environment, capture_output=True, text=True,
        timeout=900, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]

    needles = [TOKEN, str(home), USER, source, sys.prefix]
    written = {path for path in home.rglob("*") if path.is_file() and path not in given}
    names = {path.relative_to(home / "work").as_posix() for path in written if path.is_relative_to(home / "work")}
    assert {"run/run.json", "run/training_args.bin", "tuned/run.json", "run/tasks.json", "run/evaluation.json"} <= names
    assert {"onnx/model.onnx", "space/app.py", "dry/README.md", "profile/trace.json", "run/settings.json"} <= names
    assert {"described.json", "compared.json", "lists.parquet", "fit.json", "sampled/log.parquet"} <= names
    assert {"study/plan.json", "study/study.yaml", "report/report.html", "search/settings.json"} <= names
    assert {"search/tune.json", "search/trials.journal", "search/report.md", "compared/comparison.svg"} <= names
    assert any(name.endswith("trainer_state.json") for name in names)
    leaks = [leak for path in sorted(written) for leak in found(str(path), path.read_bytes(), needles)]
    for (kind, name), repo in hub.repos.items():
        for files in repo.commits.values():
            for path, content in files.items():
                leaks += found(f"sent {kind} {name}: {path}", path.encode() + content, needles)
    assert {name for _, name in hub.repos} == {"org/run", "org/tuned", "org/pushed"}
    for request in hub.requests:
        leaks += found("request", request.encode(), needles)
    for content in hub.objects.values():
        leaks += found("LFS object", content, needles)
    assert not leaks, "\n".join(map(str, leaks[:20]))
