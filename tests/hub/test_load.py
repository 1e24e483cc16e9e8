"""Loading a published model anywhere, each time in a process of its own: with the package, and without."""

import re

import pytest
import torch
from safetensors.torch import save_file

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recipe
from sr_transformers.hub.publish import build, publish
from sr_transformers.training.train import train

pytestmark = pytest.mark.slow

HISTORIES = "[vocabulary.convert_ids_to_tokens([2, 3, 4]), vocabulary.convert_ids_to_tokens([7])]"


WITH_THE_PACKAGE = """
import sr_transformers, torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline
from sr_transformers.cli import main

vocabulary = AutoTokenizer.from_pretrained("org/sr")
model = AutoModelForCausalLM.from_pretrained("org/sr")
assert type(model) is sr_transformers.LSRMForCausalLM
base = AutoModel.from_pretrained("org/sr")
assert type(base) is sr_transformers.LSRMModel
assert type(AutoConfig.from_pretrained("org/sr", revision="first")) is sr_transformers.LSRMConfig
histories = HISTORIES
inputs = vocabulary(histories, is_split_into_words=True, padding=True, return_tensors="pt")
ways = {
    "revision": {"revision": "first"},
    "device_map": {"device_map": {"": "cpu"}},
    "auto": {"device_map": "auto"},
    "eager": {"attn_implementation": "eager"},
    "sdpa": {"attn_implementation": "sdpa"},
    "flex_attention": {"attn_implementation": "flex_attention"},
    "torch_varlen": {"attn_implementation": "torch_varlen"},
    "bf16": {"dtype": torch.bfloat16},
}
with torch.no_grad():
    reference = model(**inputs).logits[:, -1]
    for name, how in ways.items():
        loaded = AutoModelForCausalLM.from_pretrained("org/sr", **how)
        assert loaded.dtype == how.get("dtype", torch.float32), name
        logits = loaded(**inputs).logits[:, -1].float()
        torch.testing.assert_close(logits, reference, atol=0.05 if name == "bf16" else 1e-5, rtol=0)
found = pipeline("next-item", model="org/sr")(histories, top_k=5)
assert main(["recommend", "--model", "org/sr", "--history", "3", "4", "-k", "2"]) == 0
base.save_pretrained("base")  # with the installed class: the code must travel on
model.save_pretrained("head")
assert AutoModelForCausalLM.from_pretrained("org/secret").dtype == torch.float32
assert main(["recommend", "--model", "org/nowhere", "--history", "3"]) == 2
SNIPPET
print([[one["item_id"] for one in each] for each in found])
"""

WITHOUT = """
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

def load(where):
    model, found = AutoModelForCausalLM.from_pretrained(where, trust_remote_code=True, output_loading_info=True)
    base, also = AutoModel.from_pretrained(where, trust_remote_code=True, output_loading_info=True)
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    assert not any(info[kind] for info in (found, also) for kind in kinds), (where, found, also)
    assert [type(one).__name__ for one in (model, base)] == ["LSRMForCausalLM", "LSRMModel"]
    assert type(model).__module__.startswith("transformers_modules.")
    assert torch.equal(model.model.embed_tokens.weight, base.embed_tokens.weight)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    return model

def recommend(where):
    histories = HISTORIES
    found = pipeline("next-item", model=where, trust_remote_code=True)(histories, top_k=5)
    return [[one["item_id"] for one in each] for each in found]

model = load("org/sr")
vocabulary = AutoTokenizer.from_pretrained("org/sr", trust_remote_code=False)  # None would ask on the terminal
found = recommend("org/sr")
model.save_pretrained("again")  # from the remote class
vocabulary.save_pretrained("again")
for where in ("./again", "./base", "./head", "./local"):
    load(where)
assert recommend("./again") == found == recommend("./local")
assert model.config.filter_seen is False  # the run's log has repeats
everything = pipeline("next-item", model="org/sr", trust_remote_code=True)
items = vocabulary.convert_ids_to_tokens(list(range(2, len(vocabulary))))
assert {str(one["item_id"]) for one in everything(items, top_k=99)} == set(items)
assert everything(items, top_k=99, exclude_seen=True) == []
model.config.items_fingerprint = "0" * 64
try:
    type(everything)(model=model, tokenizer=vocabulary)
except ValueError as error:
    assert "the model's items are not those of the vocabulary" in str(error)
else:
    raise AssertionError("took a vocabulary of other items")
try:
    AutoModelForCausalLM.from_pretrained("org/sr", trust_remote_code=False)
except ValueError:
    pass
else:
    raise AssertionError("loaded code that nobody trusted")
SNIPPET
print(found)
"""


def test_with_and_without_the_package(hub, elsewhere, finished_run, tmp_path):
    publish(finished_run, "org/sr", max_shard_size="5KB")  # in several files
    publish(finished_run, "org/secret", private=True)
    build(finished_run, tmp_path / "local", "org/sr")
    repo = hub.model("org/sr")
    repo.refs["first"] = repo.refs["main"]
    snippets = re.findall(r"```python\n(.*?)```", repo.files()["README.md"].decode(), flags=re.DOTALL)
    assert len(snippets) == 2
    codes = [
        code.replace("HISTORIES", HISTORIES).replace("SNIPPET", f"exec({snippet!r}, {{}})")
        for code, snippet in zip((WITH_THE_PACKAGE, WITHOUT), snippets, strict=True)
    ]
    installed = elsewhere(codes[0]).strip().splitlines()
    bare = elsewhere(codes[1], bare=True).strip().splitlines()
    assert installed[-1] == bare[-1]
    assert installed[-2].count("item_id") == 5
    assert bare[-2] == f"[{installed[-2]}]"


OTHER_BLOCKS = """
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

expected = load_file("logits.safetensors")
model = AutoModelForCausalLM.from_pretrained("./model", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules.")
found = model(expected["ids"], times=expected["ids"]).logits
torch.testing.assert_close(found, expected["logits"], rtol=1e-5, atol=1e-5)
plain = AutoModelForCausalLM.from_pretrained("./plain", trust_remote_code=True, attn_implementation="torch_varlen")
torch.testing.assert_close(plain(expected["ids"]).logits, expected["plain"], rtol=1e-5, atol=1e-5)
try:
    plain.train()(expected["ids"])
except ValueError as error:
    assert "cu_seq_lens_q" in str(error)
else:
    raise AssertionError("rows without their users' lengths were trained on")
print(type(model.model.norm).__name__, type(model.lm_head).__name__)
"""


def test_other_blocks_travel(elsewhere, tmp_path):
    blocks = {"position": "relative", "norm": "rms", "hidden_act": "swiglu", "residual": "gated"}
    model = LSRMForCausalLM(LSRMConfig(vocab_size=20, **blocks, attention_time=True, head="normalised")).eval()
    for parameter in model.model.attention_bias.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "model")
    ids = torch.arange(2, 14).view(2, 6)
    plain = LSRMForCausalLM(LSRMConfig(vocab_size=20)).eval()
    plain.save_pretrained(tmp_path / "plain")
    logits = {"logits": model(ids, times=ids).logits, "plain": plain(ids).logits}
    save_file({"ids": ids} | {name: one.detach() for name, one in logits.items()}, tmp_path / "logits.safetensors")
    assert elsewhere(OTHER_BLOCKS, bare=True).split() == ["RMSNorm", "CosineHead"]


READS_THE_PAST = """
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

expected = load_file("expected.safetensors")
model = AutoModelForCausalLM.from_pretrained("org/past", trust_remote_code=True)
asked = {"times": expected["times"], "query_times": expected["query_times"]}
found = model(**model.last_window(expected["ids"], **asked), logits_to_keep=1).logits
torch.testing.assert_close(found, expected["logits"], rtol=1e-5, atol=1e-5)
assert torch.equal(model.generate(expected["ids"], **asked, max_new_tokens=4, do_sample=False), expected["generated"])
SNIPPET
"""


def test_a_model_that_reads_the_past_travels(hub, elsewhere, markov_prepared, tmp_path):
    """With counts, moments and that of the request; the lines of its card name all that it wants."""
    parts = ["bigrams", "items", "baskets", "clock", "mix"]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
    recipe = Recipe("past", {**sizes, "history": parts, "query_time": True}, {"num_train_epochs": 1, "warmup_steps": 1})
    train(recipe, markov_prepared, tmp_path / "run")
    publish(tmp_path / "run", "org/past")
    model = LSRMForCausalLM.from_pretrained(tmp_path / "run").eval()
    ids = torch.arange(2, 26).view(2, 12)  # more than the window
    asked = {"times": ids // 3, "query_times": ids[:, -1].clone()}
    with torch.no_grad():
        logits = model(**model.last_window(ids, **asked), logits_to_keep=1).logits
    generated = model.generate(ids, **asked, max_new_tokens=4, do_sample=False)
    save_file({"ids": ids, **asked, "logits": logits, "generated": generated}, tmp_path / "expected.safetensors")
    card = hub.model("org/past").files()["README.md"].decode()
    assert "from\nwhen that was, from when it is asked, and from nothing else" in card
    assert "the model reads the 8 most recent of the rest, and counts in all of them." in card
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    installed = elsewhere(snippets[0]).strip().splitlines()[-1]
    bare = elsewhere(READS_THE_PAST.replace("SNIPPET", snippets[1]), bare=True).strip().splitlines()[-1]
    assert installed.count("item_id") == 5
    assert bare == f"[{installed}]"
