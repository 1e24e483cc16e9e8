"""A Hub on loopback for huggingface_hub's real client, and a run that was really trained."""

import os
import subprocess
import sys

import huggingface_hub
import huggingface_hub.constants
import pytest
from loopback_hub import LoopbackHub

from sr_transformers import Recipe
from sr_transformers.training.train import train

RECIPE = """
model: {hidden_size: 16, num_hidden_layers: 2, max_position_embeddings: 8}
training: {num_train_epochs: 1, learning_rate: 1e-2, precision: fp32, disable_tqdm: true, save_strategy: epoch}
"""


@pytest.fixture(scope="session")
def finished_run(markov_prepared, tmp_path_factory):
    """Output folder of a small finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(RECIPE)
    train(Recipe.load(folder / "tiny.yaml"), markov_prepared, folder / "run")
    return folder / "run"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The loopback Hub, and this process's client pointed at it, logged in as one who may write to org/."""
    server = LoopbackHub()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    # The client that transformers shares took its address when it was first used, perhaps by another test.
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.close_session()  # its time limit is that of an earlier test
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
    yield server
    server.close()


@pytest.fixture
def elsewhere(hub, tmp_path):
    """Runs code in a process of its own with the loopback Hub; `bare`: one that cannot import this package."""

    def run(code, bare=False):
        if bare:
            code = "import sys\nsys.modules['sr_transformers'] = None\n" + code
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": "hf_writer"}
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-4000:]
        return result.stdout

    return run
