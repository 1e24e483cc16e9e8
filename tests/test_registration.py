"""`import sr_transformers` is cheap, and whatever is imported in whatever order, the Auto classes know LSRM."""

import subprocess
import sys

import pytest

CHECK = """
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
config = AutoConfig.for_model("lsrm", vocab_size=30)
assert type(AutoModel.from_config(config)).__name__ == "LSRMModel"
assert type(AutoModelForCausalLM.from_config(config)).__name__ == "LSRMForCausalLM"
from transformers.pipelines import PIPELINE_REGISTRY
assert PIPELINE_REGISTRY.check_task("next-item")[1]["impl"].__name__ == "NextItemPipeline"
"""

ORDERS = {
    "ours first": "import sr_transformers",
    "theirs first": "from transformers import AutoModelForCausalLM\nimport sr_transformers",
    "another model of theirs in between": "import sr_transformers\nfrom transformers import LlamaForCausalLM",
    "trainer in between": "import sr_transformers\nfrom transformers import Trainer",
    "our modelling file directly": "import sr_transformers.lsrm.modeling_lsrm",
    "our config directly": "from sr_transformers import LSRMConfig",
    "pipelines first": "from transformers import pipeline\nimport sr_transformers",
    "our pipeline directly": "import sr_transformers.lsrm.pipeline_lsrm",
    "layers in between": "import sr_transformers\nimport transformers.modeling_layers",
}


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("before", ORDERS.values(), ids=ORDERS)
def test_auto_classes_know_lsrm(before):
    result = run(before + CHECK)
    assert result.returncode == 0, result.stderr


def test_the_import_pulls_in_neither_torch_nor_transformers():
    result = run(
        "import sys, sr_transformers; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_help_needs_neither():
    code = (
        "import sys\nfrom sr_transformers.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert "prepare" in result.stdout


def test_public_names_are_there_and_others_are_not():
    import sr_transformers

    for name in sr_transformers.__all__:
        assert getattr(sr_transformers, name) is not None
    assert set(sr_transformers.__all__) <= set(dir(sr_transformers))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sr_transformers.nonsense  # noqa: B018
