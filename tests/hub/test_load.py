"""Loading a published model anywhere, each time in a process of its own: with the package, and without."""

import re

import pytest

from sr_transformers.hub.publish import build, publish

pytestmark = pytest.mark.slow

HISTORIES = "[vocabulary.convert_ids_to_tokens([2, 3, 4]), vocabulary.convert_ids_to_tokens([7])]"


@pytest.fixture
def published(hub, finished_run):
    publish(finished_run, "org/sr", max_shard_size="5KB")  # in several files
    return hub


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


WITH_THE_PACKAGE = """
import sr_transformers, torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

vocabulary = AutoTokenizer.from_pretrained("org/sr")
model = AutoModelForCausalLM.from_pretrained("org/sr")
assert type(model) is sr_transformers.LSRMForCausalLM
assert type(AutoModel.from_pretrained("org/sr")) is sr_transformers.LSRMModel
assert type(AutoConfig.from_pretrained("org/sr", revision="first")) is sr_transformers.LSRMConfig
inputs = vocabulary([["2", "3", "4", "5"], ["7"]], is_split_into_words=True, padding=True, return_tensors="pt")
with torch.no_grad():
    reference = model(**inputs).logits[:, -1]
    ways = {
        "revision": {"revision": "first"},
        "device_map": {"device_map": {"": "cpu"}},
        "auto": {"device_map": "auto"},
        "eager": {"attn_implementation": "eager"},
        "sdpa": {"attn_implementation": "sdpa"},
        "flex_attention": {"attn_implementation": "flex_attention"},
        "bf16": {"dtype": torch.bfloat16},
    }
    for name, how in ways.items():
        found = AutoModelForCausalLM.from_pretrained("org/sr", **how)
        assert found.dtype == how.get("dtype", torch.float32), name
        logits = found(**inputs).logits[:, -1].float()
        torch.testing.assert_close(logits, reference, atol=0.05 if name == "bf16" else 1e-5, rtol=0)
recommend = pipeline("next-item", model="org/sr")
histories = HISTORIES
print([[one["item_id"] for one in found] for found in recommend(histories, top_k=5)])
"""

WITHOUT = """
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

def load(where):
    model = AutoModelForCausalLM.from_pretrained(where, trust_remote_code=True)
    base = AutoModel.from_pretrained(where, trust_remote_code=True)
    assert [type(one).__name__ for one in (model, base)] == ["LSRMForCausalLM", "LSRMModel"]
    assert type(model).__module__.startswith("transformers_modules.")
    assert torch.equal(model.model.embed_tokens.weight, base.embed_tokens.weight)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    vocabulary = AutoTokenizer.from_pretrained(where)
    recommend = pipeline("next-item", model=where, trust_remote_code=True)
    histories = HISTORIES
    return model, vocabulary, [[one["item_id"] for one in found] for found in recommend(histories, top_k=5)]

model, vocabulary, found = load("org/sr")
model.save_pretrained("again")  # from the remote class; its code must travel on
vocabulary.save_pretrained("again")
assert load("./again")[2] == found
try:
    AutoModelForCausalLM.from_pretrained("org/sr", trust_remote_code=False)
except ValueError as error:
    assert "lsrm" in str(error) or "custom code" in str(error)
else:
    raise AssertionError("loaded code that nobody trusted")
print(found)
"""


def test_with_and_without_the_package(published, elsewhere, finished_run):
    repo = published.model("org/sr")
    repo.refs["first"] = repo.refs["main"]
    installed = elsewhere(WITH_THE_PACKAGE.replace("HISTORIES", HISTORIES))
    bare = elsewhere(WITHOUT.replace("HISTORIES", HISTORIES), bare=True)
    assert installed.strip().splitlines()[-1] == bare.strip().splitlines()[-1]


def test_the_snippets_of_the_card_run(published, elsewhere):
    card = published.model("org/sr").files()["README.md"].decode()
    with_package, without = snippets(card)
    first = elsewhere(with_package).strip().splitlines()[-1]
    second = elsewhere(without, bare=True).strip().splitlines()[-1]
    assert first.count("item_id") == 5
    assert f"[{first}]" == second


def test_resaving_with_the_package_keeps_the_code(published, elsewhere, finished_run, tmp_path):
    """A base model and a head, loaded from the Hub and saved again, load without the package; no network needed."""
    build(finished_run, tmp_path / "local", "org/sr")
    elsewhere(
        "import sr_transformers\n"
        "from transformers import AutoModel, AutoModelForCausalLM\n"
        "AutoModel.from_pretrained('org/sr').save_pretrained('base')\n"
        "AutoModelForCausalLM.from_pretrained('org/sr').save_pretrained('head')\n"
    )
    elsewhere(
        "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "from transformers import AutoModel, AutoModelForCausalLM\n"
        "for where in ('base', 'head', 'local'):\n"
        "    for auto in (AutoModel, AutoModelForCausalLM):\n"
        "        model, found = auto.from_pretrained(\n"
        "            './' + where, trust_remote_code=True, output_loading_info=True\n"
        "        )\n"
        "        assert not any(found[k] for k in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), (where, found)\n",
        bare=True,
    )


def test_private_needs_a_token(hub, elsewhere, finished_run):
    publish(finished_run, "org/secret", private=True)
    code = (
        "import sr_transformers\n"
        "from transformers import AutoModelForCausalLM\n"
        "try:\n    print(type(AutoModelForCausalLM.from_pretrained('org/secret')).__name__)\n"
        "except OSError as error:\n    print('OSError', 'org/secret' in str(error))\n"
    )
    assert elsewhere(code).strip() == "LSRMForCausalLM"
    assert elsewhere(code.replace("import sr_transformers\n", "import sr_transformers, shutil, os\n"), token="hf_reader")


def test_the_command_line_loads_by_name(published, elsewhere):
    out = elsewhere(
        "from sr_transformers.cli import main\nimport sys\n"
        "sys.exit(main(['recommend', '--model', 'org/sr', '--history', '3', '4', '-k', '2']))"
    )
    assert len(out.strip().splitlines()) == 2
