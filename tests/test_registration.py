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


# Each order in a fork of a process that has torch, which all need and on which none depends, but neither of the two.
EACH = """
import os, sys, traceback, torch, numpy
for name, code in {orders}.items():
    assert not [one for one in sys.modules if one.startswith(("transformers", "sr_transformers"))]
    child = os.fork()
    if child == 0:
        try:
            exec(compile(code, name, "exec"), {{"__name__": "__main__"}})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sep="=", flush=True)
"""


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def ended():
    """What every order of imports ended with, and what they said."""
    result = run(EACH.format(orders={name: before + CHECK for name, before in ORDERS.items()}))
    assert result.returncode == 0, result.stderr
    return dict(line.rsplit("=", 1) for line in result.stdout.splitlines()), result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_know_lsrm(order, ended):
    codes, said = ended
    assert codes[order] == "0", said


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
