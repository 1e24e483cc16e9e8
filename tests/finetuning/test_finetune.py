import json
import shutil

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, TrainerCallback

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recipe, Recommender, RunRecord, finetune, train
from sr_transformers.data.fractions import FractionOfData
from sr_transformers.data.logs import synthetic
from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import build_tokenizer, item_counts, item_list
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.finetuning.finetune import DataWithOldItems, weights_sha256
from sr_transformers.finetuning.vocabulary_transfer import with_vocabulary
from sr_transformers.lsrm.identity_lsrm import tokenizer_fingerprint
from sr_transformers.training.mixing import mix_counts

MODEL = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}


def recipe(model=(), **training):
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 32, "disable_tqdm": True, "precision": "fp32"}
    return Recipe("tiny", {**MODEL, **dict(model)}, {**settings, **training})


@pytest.fixture(scope="module")
def checkpoint(markov_prepared, tmp_path_factory):
    """Trained on items 0 .. 29."""
    folder = tmp_path_factory.mktemp("base") / "run"
    train(recipe(), markov_prepared, folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Items 10 .. 39, so 20 known and 10 new."""
    log = synthetic.generate(num_users=200, num_items=30, num_successors=3, mean_length=12, seed=3)
    return prepare(log.with_columns(pl.col("item_id") + 10), tmp_path_factory.mktemp("other") / "data")


@pytest.fixture(scope="module")
def finished(checkpoint, other, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fine") / "run"
    return folder, finetune(checkpoint, other, recipe(), folder)


def table(folder):
    """Row of the table by raw item id."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = model.model.embed_tokens.weight.detach()
    return {item: rows[token] for token, item in enumerate(item_list(tokenizer), 2)}


def body(folder):
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return {name: value for name, value in state.items() if "embed_tokens" not in name and "lm_head" not in name}


def test_it_leaves_a_standard_run_with_the_logs_vocabulary(finished, other):
    folder, record = finished
    assert len(AutoTokenizer.from_pretrained(folder)) == other.vocab_size
    names = [one["model"] for one in record.reports]
    assert names == ["lsrm tiny", *(one.name for one in baselines(other))]
    assert names[-1] == "mix"
    assert RunRecord.load(folder) == record


def test_the_record_tells_where_it_came_from(finished, checkpoint):
    folder, record = finished
    origin = record.recipe["origin"]
    items = {"known": 20, "new": 10, "dropped": 10, "by_nearest": 10, "by_mean": 0, "by_random": 0}
    assert origin["items"] == items
    assert origin["model"] == checkpoint.name  # no path of this machine
    assert origin["weights_sha256"] == weights_sha256(AutoModelForCausalLM.from_pretrained(checkpoint))
    assert json.loads((folder / "settings.json").read_text())["origin"] == origin


def test_the_digest_sees_every_weight(checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    before = weights_sha256(model)
    with torch.no_grad():
        model.model.norm.bias[3] += 1e-6
    assert weights_sha256(model) != before


def test_everything_learns_unless_frozen(finished, checkpoint):
    folder, _ = finished
    before, after = body(checkpoint), body(folder)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    old, new = table(checkpoint), table(folder)
    assert all(not torch.equal(old[item], new[item]) for item in set(old) & set(new))


def test_a_frozen_body_stays(checkpoint, other, tmp_path):
    finetune(checkpoint, other, recipe(), tmp_path / "run", freeze="body")
    before, after = body(checkpoint), body(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    old, new = table(checkpoint), table(tmp_path / "run")
    assert not torch.equal(old[15], new[15])


def test_a_frozen_table_stays(checkpoint, other, tmp_path):
    finetune(checkpoint, other, recipe(), tmp_path / "run", freeze="table")
    old, new = table(checkpoint), table(tmp_path / "run")
    assert set(new) == set(range(10, 40))
    assert all(torch.equal(old[item], new[item]) for item in range(10, 30))
    before, after = body(checkpoint), body(tmp_path / "run")
    assert not torch.equal(before["model.norm.bias"], after["model.norm.bias"])


def test_adapters_are_merged_and_nothing_else_of_the_body_moves(checkpoint, other, tmp_path):
    pytest.importorskip("peft", reason="adapters need the extra lora")
    record = finetune(checkpoint, other, recipe(), tmp_path / "run", lora_rank=2)
    before, after = body(checkpoint), body(tmp_path / "run")
    assert set(before) == set(after)  # no adapter is left
    for name in before:
        if "proj.weight" in name:
            rank = torch.linalg.matrix_rank(after[name].double() - before[name].double(), atol=1e-5)
            assert rank == 2, name
        else:
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(table(checkpoint)[15], table(tmp_path / "run")[15])
    # what was ranked on test is the merged model that was saved
    from sr_transformers import ModelScorer, evaluate

    metrics = evaluate(ModelScorer(AutoModelForCausalLM.from_pretrained(tmp_path / "run")), other)["metrics"]
    assert metrics["loss"] == pytest.approx(record.reports[0]["metrics"]["loss"], abs=1e-5)


def test_kept_items_can_still_be_named(checkpoint, other, tmp_path):
    record = finetune(checkpoint, other, recipe(), tmp_path / "run", old_items="keep")
    items = item_list(AutoTokenizer.from_pretrained(tmp_path / "run"))
    assert items[:30] == item_list(other.tokenizer)
    assert sorted(items[30:]) == list(range(10))
    assert record.reports[0]["protocol"]["num_items_ranked"] == 40
    assert record.recipe["origin"]["items"]["dropped"] == 0
    assert record.reports[1]["metrics"]["hr@10"] > 0  # baselines rank over the same items


def test_a_log_with_old_items_counts_nothing_for_them(checkpoint, other):
    data = DataWithOldItems(other.path, AutoTokenizer.from_pretrained(checkpoint))
    assert len(data.item_counts) == data.vocab_size == len(data.tokenizer) == 42
    assert data.item_counts[:32].tolist() == other.item_counts.tolist()
    assert not data.item_counts[32:].any()


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["full", "adapters"])
def test_an_interrupted_run_ends_with_the_same_bits(checkpoint, other, tmp_path, options):
    if options:
        pytest.importorskip("peft", reason="adapters need the extra lora")

    class Die(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            if state.epoch and state.epoch >= 1:
                raise KeyboardInterrupt

    whole = finetune(checkpoint, other, recipe(), tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        finetune(checkpoint, other, recipe(), tmp_path / "part", **options, callbacks=[Die()])
    with pytest.raises(FileExistsError, match="other settings"):
        finetune(checkpoint, other, recipe(), tmp_path / "part", **options, init="mean")
    resumed = finetune(checkpoint, other, recipe(), tmp_path / "part", **options)
    assert resumed.reports[0]["metrics"] == whole.reports[0]["metrics"]
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_dropout_is_the_recipes(checkpoint, other, tmp_path):
    finetune(checkpoint, other, recipe({"embedding_dropout": 0.45}, max_steps=1), tmp_path / "run")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run").config.embedding_dropout == 0.45


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"old_items": "sell"}, "old_items is 'sell'; choose from drop, keep"),
        ({"freeze": "head"}, "freeze is 'head'; choose from nothing, body, table"),
        ({"freeze": "body", "lora_rank": 2}, "lora_rank is 2 with freeze 'body'"),
        ({"lora_rank": -1}, "lora_rank is -1"),
        (
            {"recipe": recipe({"hidden_size": 32, "max_position_embeddings": 9})},
            r"hidden_size 32 instead of 16, max_position_embeddings 9 instead of 8; set --hidden_size 16 --max_pos",
        ),
    ],
)
def test_wrong_requests_are_refused(checkpoint, other, tmp_path, options, message):
    arguments = {"name_or_path": checkpoint, "data": other, "recipe": recipe(), "output_dir": tmp_path / "run"}
    with pytest.raises(ValueError, match=message):
        finetune(**{**arguments, **options})


def test_a_part_of_a_log_keeps_no_old_items(checkpoint, other, tmp_path):
    part = FractionOfData(other, "users", 0.5)
    with pytest.raises(ValueError, match="old_items is 'keep' with FractionOfData"):
        finetune(checkpoint, part, recipe(), tmp_path / "run", old_items="keep")


def test_another_kind_of_model_is_refused(other, tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=5, n_layer=1, n_embd=4, n_head=1)).save_pretrained(tmp_path / "gpt2")
    build_tokenizer(["a", "b", "c"]).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="is a gpt2 model; only lsrm"):
        finetune(tmp_path / "gpt2", other, recipe(), tmp_path / "run")


def test_without_peft_it_says_what_to_install(checkpoint, other, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'sr-transformers\[lora\]'"):
        finetune(checkpoint, other, recipe(), tmp_path / "run", lora_rank=2)


def test_weights_need_an_origin(other, tmp_path):
    model = LSRMForCausalLM(LSRMConfig(vocab_size=other.vocab_size, **MODEL))
    with pytest.raises(ValueError, match="model and origin belong together"):
        train(recipe(), other, tmp_path / "run", model=model)


@pytest.mark.parametrize("old_items", ["drop", "keep"])
def test_a_run_keeps_its_items_and_their_counts(checkpoint, other, old_items, tmp_path):
    finetune(checkpoint, other, recipe(num_train_epochs=1), tmp_path / "run", old_items=old_items)
    vocabulary = AutoTokenizer.from_pretrained(tmp_path / "run")
    config = LSRMConfig.from_pretrained(tmp_path / "run")
    assert config.items_fingerprint == tokenizer_fingerprint(vocabulary)
    counts = dict(zip(item_list(vocabulary), item_counts(vocabulary).tolist(), strict=True))
    for item, count in zip(other.item_ids.to_pylist(), other.item_counts[2:].tolist(), strict=True):
        assert counts.pop(item) == count
    assert counts == (dict.fromkeys(range(10), 0) if old_items == "keep" else {})
    best = other.item_ids.to_pylist()[int(other.item_counts[2:].argmax())]
    found = Recommender.from_pretrained(tmp_path / "run").recommend([], k=1, fallback="popularity")
    assert found[0].item == best


def test_a_recipe_that_names_no_history_is_no_contradiction(checkpoint, other, tmp_path):
    """Recipes of the package write `history: []`; a configuration that leaves it out has the default, a tuple."""
    older = shutil.copytree(checkpoint, tmp_path / "older")
    config = json.loads((older / "config.json").read_text())
    (older / "config.json").write_text(json.dumps({key: one for key, one in config.items() if key != "history"}))
    record = finetune(older, other, recipe({"history": []}, num_train_epochs=1), tmp_path / "run")
    assert record.epochs == 1


def test_a_model_that_reads_the_past_goes_to_another_log(markov_prepared, other, tmp_path):
    """Rows of known items start where they were, and what `mix` counts is that of the new log."""
    past = {"history": ["items", "baskets", "clock", "mix"]}
    train(recipe(past), markov_prepared, tmp_path / "base", with_baselines=False)
    record = finetune(tmp_path / "base", other, recipe(), tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert model.config.history == past["history"]
    expected = {name: torch.from_numpy(table) for name, table in mix_counts(other, model.config)[0].items()}
    assert all(torch.equal(getattr(model.history.mix, name), table) for name, table in expected.items())
    assert record.reports[0]["fitted"]["share"] == model.config.mix_share
    base, before = (kind.from_pretrained(tmp_path / "base") for kind in (AutoModelForCausalLM, AutoTokenizer))
    items, old = item_list(other.tokenizer), item_list(before)
    start, _, _ = with_vocabulary(base, before, items)
    rows, known = start.history.item_table.weight[2:], base.history.item_table.weight[2:]
    assert known.any()
    for item, row in zip(items, rows, strict=True):
        assert torch.equal(row, known[old.index(item)] if item in old else torch.zeros(2))
