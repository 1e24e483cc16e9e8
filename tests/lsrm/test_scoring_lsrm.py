"""One way to score: whatever became of the head, loss and logits agree, and all front ends give one order."""

import warnings
from dataclasses import astuple

import accelerate
import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, pipeline

from sr_transformers import LSRMConfig, LSRMForCausalLM, ModelScorer, Recommender, Session
from sr_transformers.data.past_inputs import Past
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.evaluation.evaluator import rank_histories
from sr_transformers.evaluation.ranking import log_partition
from sr_transformers.lsrm.configuration_lsrm import NUM_SPECIAL
from sr_transformers.lsrm.scoring_lsrm import (
    check_tokenizer,
    item_range,
    only_items,
    reads_weight,
    refuse_diverged,
    top_k_items,
)
from sr_transformers.serving.onnx import NextItems

WINDOW, NUM = 8, 60
ITEMS = [f"i{n}" for n in range(NUM)]
HISTORIES = [["i3"], ["i1", "i2", "i3"], ["i9", "i8", "i7", "i6", "i5", "i4", "i3", "i2"], ITEMS[20:40]]


def plain(folder):
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=NUM + 2, hidden_size=16, max_position_embeddings=WINDOW, initializer_range=0.3,
        embedding_dropout=0.0, residual_dropout=0.0,
    )  # fmt: skip
    return LSRMForCausalLM(config)


def adapted(folder):
    peft = pytest.importorskip("peft", reason="needs the extra lora")
    model = plain(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the head is tied
        peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["lm_head", "q_proj"], init_lora_weights=False))
    return model


def adapter_folder(folder):
    peft = pytest.importorskip("peft", reason="needs the extra lora")
    plain(folder).save_pretrained(folder / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        config = peft.LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
        peft.get_peft_model(base, config).save_pretrained(folder / "adapter")
    return AutoModelForCausalLM.from_pretrained(folder / "adapter")


def hooked(folder):
    model = plain(folder)
    slope = torch.linspace(0.0, 4.0, NUM + 2)
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + slope)
    return model


def hooked_as_a_whole(folder):
    model = plain(folder)

    def change(module, inputs, output):
        output.logits = output.logits * 1.0 if output.logits is None else output.logits.flip(-1).roll(NUM_SPECIAL, -1)
        return output

    model.register_forward_hook(change)
    return model


def in_bf16(folder):
    return plain(folder).to(torch.bfloat16)


class Int8Linear(nn.Module):
    """Weights of 8 bits with a scale a row, as quantizers put in the place of `nn.Linear`."""

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, states):
        return nn.functional.linear(states, self.weight.float() * self.scale)


def in_int8(folder):
    model = plain(folder)
    model.lm_head = Int8Linear(model.lm_head)
    return model


def in_int8_by_torch(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The head alone: torch quantizes what goes in by the range of all of it, so layers would answer by batch.
        return torch.ao.quantization.quantize_dynamic(plain(folder).eval(), {"lm_head"}, torch.qint8)


def with_bias(folder):
    model = plain(folder)
    head = nn.Linear(16, NUM + 2)
    head.weight = model.lm_head.weight
    model.lm_head = head
    return model


def on_disk(folder):
    plain(folder).save_pretrained(folder / "whole")
    return AutoModelForCausalLM.from_pretrained(
        folder / "whole", device_map={"": "disk"}, offload_folder=str(folder / "offloaded")
    )


def on_cpu(folder):
    return accelerate.cpu_offload(plain(folder), execution_device=torch.device("cpu"))


def filled_up(folder):
    model = plain(folder)
    model.resize_token_embeddings(pad_to_multiple_of=64)
    return model


HEADS = {
    one.__name__: one
    for one in (
        plain, adapted, adapter_folder, hooked, in_bf16, in_int8, in_int8_by_torch, with_bias, on_disk, on_cpu,
        filled_up,
    )
}  # fmt: skip
READ = ("plain", "in_bf16", "filled_up")


@pytest.fixture(params=HEADS)
def model(request, tmp_path):
    """A model, and whether its head may be read."""
    found = HEADS[request.param](tmp_path)
    assert reads_weight(found.lm_head) == (request.param in READ)
    return found


def loss_of_logits(logits, ids):
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten())


def test_the_training_loss_is_the_cross_entropy_of_the_models_own_logits(model):
    ids = torch.randint(2, NUM + 2, (5, WINDOW), generator=torch.Generator().manual_seed(0))
    model.train()
    output = model(input_ids=ids, labels=ids, skip_logits=False)
    assert output.logits.dtype == torch.float32
    expected = loss_of_logits(output.logits, ids)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    with torch.no_grad():
        assert model(input_ids=ids, labels=ids).loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in HEADS if "int8" not in name and not name.startswith("on_")])
def test_gradients_are_those_of_the_models_own_logits(name, tmp_path):
    ids = torch.randint(2, NUM + 2, (5, WINDOW), generator=torch.Generator().manual_seed(0))
    model = HEADS[name](tmp_path).train()
    for one in model.parameters():
        one.requires_grad_(one.is_floating_point())
    model(input_ids=ids, labels=ids).loss.backward()
    found = {name: one.grad.clone() for name, one in model.named_parameters()}
    assert any("lora" in name and "lm_head" in name for name in found) == name.startswith("adapt")
    model.zero_grad()
    loss_of_logits(model(input_ids=ids).logits, ids).backward()
    tolerance = 0.02 if name == "in_bf16" else 1e-5
    for name, one in model.named_parameters():
        # The keys' biases change nothing, so their gradients are but rounding.
        largest = max(one.grad.abs().max().item(), 1e-2)
        torch.testing.assert_close(found[name], one.grad, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize("name", ["adapted", "in_int8", "plain"])
def test_sampled_softmax_scores_as_the_model_does(name, tmp_path):
    ids = torch.randint(2, NUM + 2, (5, WINDOW), generator=torch.Generator().manual_seed(0))
    model = HEADS[name](tmp_path)
    negatives, log_q = torch.arange(2, NUM + 2), torch.full((NUM,), 1 / NUM).log()  # every item once: the exact loss
    loss = model(input_ids=ids, labels=ids, negative_ids=negatives, negative_log_q=log_q).loss
    assert loss.item() == pytest.approx(loss_of_logits(model(input_ids=ids).logits, ids).item(), rel=1e-5)


def orders(model, history):
    """Best items first by every front end, nothing left out, and the logits that they all stand for."""
    tokenizer = build_tokenizer(ITEMS)
    recommender = Recommender(model, tokenizer)
    pipe = pipeline("next-item", model=model, tokenizer=tokenizer, device=None)
    step = Session(recommender, history[:1])
    if len(history) > 1:
        step.recommend(1)
        step.add(*history[1:])
    tokens = recommender.encode(history)
    with torch.no_grad():
        graph = NextItems(model.eval(), NUM)(torch.from_numpy(tokens)[None], torch.tensor([False]))
        logits = model(input_ids=torch.from_numpy(tokens[-WINDOW:])[None], logits_to_keep=1).logits[0, -1, 2 : NUM + 2]
    scorer = ModelScorer(model)
    targets = np.arange(2, NUM + 2)
    ranking, losses = rank_histories(scorer, [Past(tokens)] * NUM, targets, None, (NUM,))
    by_rank = [ITEMS[n] for n in np.argsort(ranking.ranks, kind="stable")]
    found = {
        "recommender": [one.item for one in recommender.recommend(history, NUM, exclude_seen=False)],
        "pipeline": [one["item_id"] for one in pipe(history, top_k=NUM, exclude_seen=False)],
        "session": [one.item for one in step.recommend(NUM, exclude_seen=False)],
        "graph": [ITEMS[n - 2] for n in graph["items"][0].tolist()],
        "evaluate": by_rank,
        "evaluate's top": [ITEMS[n - 2] for n in ranking.top[0].tolist()],
    }
    probability = recommender.recommend(history, 1, exclude_seen=False)[0].probability
    assert losses.min() == pytest.approx(-np.log(probability), rel=1e-3)
    return found, logits


@pytest.mark.parametrize("history", HISTORIES, ids=len)
def test_all_front_ends_give_one_order(model, history):
    found, logits = orders(model, history)
    best = found["recommender"]
    assert sorted(best) == sorted(ITEMS)
    assert all(order == best for order in found.values()), [name for name in found if found[name] != best]
    if len(history) <= WINDOW:
        assert best == [ITEMS[n] for n in logits.argsort(descending=True, stable=True).tolist()]


def test_hooks_around_the_whole_model_count_too(tmp_path):
    found, _ = orders(hooked_as_a_whole(tmp_path), HISTORIES[1])
    assert all(order == found["pipeline"] for order in found.values())
    assert found["pipeline"] != orders(plain(tmp_path), HISTORIES[1])[0]["pipeline"]


def test_items_that_score_alike_stand_in_the_order_of_their_tokens(tmp_path):
    model = plain(tmp_path)
    with torch.no_grad():
        model.lm_head.weight[2:] = model.lm_head.weight[2:].sign() * 0.25  # few different scores
        model.lm_head.weight[10:40] = model.lm_head.weight[10]
    found, logits = orders(model, HISTORIES[1])
    assert len(logits.unique()) < 40
    assert found["recommender"].index("i9") + 1 == found["recommender"].index("i10")
    del found["graph"]  # onnxruntime's TopK keeps to this order, torch's to none
    assert all(order == found["recommender"] for order in found.values())


@pytest.mark.parametrize("vocab_size", [5, 1000, 30_001])
@pytest.mark.parametrize("k", [1, 5])
def test_ties_are_broken_by_token_wherever_they_stand(vocab_size, k):
    generator = torch.Generator().manual_seed(vocab_size)
    scores = torch.randint(0, 3, (6, vocab_size), generator=generator).float()
    scores[1] = 7.0
    scores[2] = -torch.inf
    scores[3, :-1] = -torch.inf
    scores[4] = torch.randn(vocab_size, generator=generator)
    before = scores.clone()
    values, tokens = top_k_items(scores, k)
    assert torch.equal(scores, before)
    assert torch.equal(values, scores.gather(1, tokens))
    for row, found in zip(scores, tokens, strict=True):
        expected = row.sort(descending=True, stable=True).indices[:k]
        named = row[expected] > -torch.inf  # which of the others stand for nothing is of no interest
        assert torch.equal(found[named], expected[named])


# A table with more rows than there are items


@pytest.fixture(params=[str, int])
def two_tables(request, tmp_path):
    """A model, the same after its table was filled up to 128 rows, and their items."""
    ids = ITEMS if request.param is str else list(range(100, 100 + NUM))
    model, padded = plain(tmp_path), plain(tmp_path)
    padded.resize_token_embeddings(pad_to_multiple_of=128)
    with torch.no_grad():
        padded.lm_head.weight[NUM + 2 :] = 50.0 * padded.model.norm.weight + padded.lm_head.weight[2]
        padded.lm_head.weight[:2] = 50.0  # padding and unknown would win, too
    return model, padded, ids


def test_rows_that_are_no_item_have_neither_place_nor_probability(two_tables):
    model, padded, ids = two_tables
    assert (padded.config.vocab_size, padded.config.num_items) == (128, NUM)
    tokenizer = build_tokenizer(ids)
    history = [ids[3], ids[7], ids[5]]
    tokens = torch.from_numpy(np.array([[5, 9, 7], [2, 60, 61]]))
    for k in (5, 999):
        expected, found = (Recommender(one, tokenizer).recommend(history, k) for one in (model, padded))
        assert [one.item for one in found] == [one.item for one in expected]
        assert [one.probability for one in found] == pytest.approx([one.probability for one in expected], rel=1e-5)
        piped = pipeline("next-item", model=padded, tokenizer=tokenizer, device="cpu")(history, top_k=k)
        assert [(one["item_id"], one["score"]) for one in piped] == [
            (one.item, pytest.approx(one.probability)) for one in expected
        ]
        wanted = [(one.item, pytest.approx(one.probability, rel=2e-6)) for one in expected]  # it sums in another order
        visit = Session(Recommender(padded, tokenizer), history).recommend(k)
        assert [astuple(one) for one in visit] == wanted
        with torch.no_grad():
            graph = NextItems(padded, min(k, NUM))(tokens[:1], torch.tensor([True]))
        assert [ids[n - 2] for n in graph["items"][0].tolist() if n] == [one.item for one in expected]
    one, other = (m(input_ids=tokens, labels=tokens).loss.item() for m in (model, padded))
    assert other == pytest.approx(one, rel=1e-5)
    scores = ModelScorer(padded).score(list(tokens.numpy()))
    assert scores.shape == (2, NUM + 2)
    torch.testing.assert_close(scores, ModelScorer(model).score(list(tokens.numpy())), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_partition(scores), scores[:, 2:].logsumexp(1))
    probabilities = padded(input_ids=tokens).logits.softmax(-1)
    torch.testing.assert_close(probabilities[..., 2 : NUM + 2].sum(-1), torch.ones(2, 3))
    assert not probabilities[..., :2].any()
    assert not probabilities[..., NUM + 2 :].any()
    with pytest.raises(ValueError, match="k is 61; this vocabulary has 60 items"):
        NextItems(padded, NUM + 1)


def test_nothing_but_items_is_generated_and_nothing_else_learns(two_tables):
    _, padded, _ = two_tables
    ids = torch.randint(2, NUM + 2, (3, 3), generator=torch.Generator().manual_seed(0))
    for settings in ({"do_sample": False}, {"do_sample": True, "top_k": 0}, {"num_beams": 3, "do_sample": False}):
        found = padded.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, pad_token_id=0, **settings)
        assert found.shape == (3, 7)
        assert found.min() >= 2
        assert found.max() < NUM + 2
    padded.lm_head.weight = nn.Parameter(padded.lm_head.weight.detach().clone())  # apart from what the input learns
    padded(input_ids=ids, labels=ids).loss.backward()
    gradient = padded.lm_head.weight.grad.abs().sum(1)
    assert (gradient[2 : NUM + 2] > 0).all()
    assert not gradient[:2].any()
    assert not gradient[NUM + 2 :].any()


def test_the_number_of_items_is_kept_and_follows_the_table(tmp_path):
    model = filled_up(tmp_path)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert item_range(again.config) == (2, NUM + 2)
    again.generation_config.suppress_tokens = [0, 1, 62, 63]
    again.config.items_fingerprint = "of 60 items"
    again.resize_token_embeddings(NUM + 2, pad_to_multiple_of=32)
    assert again.config.items_fingerprint == "of 60 items"
    again.resize_token_embeddings(NUM + 3, pad_to_multiple_of=64)
    assert (again.config.vocab_size, item_range(again.config)) == (64, (2, NUM + 3))
    assert again.generation_config.suppress_tokens == [0, 1]
    assert again.config.items_fingerprint is None
    again.resize_token_embeddings(100)
    assert (again.config.num_items, item_range(again.config)) == (None, (2, 100))
    again.resize_token_embeddings()
    assert again.config.num_items is None


@pytest.mark.parametrize("num_items", [0, 61, -1])
def test_more_items_than_rows_are_refused(num_items):
    with pytest.raises(Exception, match=f"num_items is {num_items}; a table of 62 rows holds 2 special tokens"):
        LSRMConfig(vocab_size=62, num_items=num_items)


@pytest.mark.parametrize("name", ["pad_token_id", "unk_token_id"])
def test_a_special_token_that_is_an_item_is_refused(name):
    with pytest.raises(Exception, match=f"{name} is 7; only tokens 0 and 1 are special"):
        LSRMConfig(**{name: 7})


@pytest.mark.parametrize("label", [0, 1, NUM + 2])
def test_a_label_that_is_no_item_is_refused(tmp_path, label):
    ids = torch.tensor([[2, 3, 4]])
    with pytest.raises(ValueError, match=f"a label is {label}, which is no item: items are the tokens from 2 to 61"):
        filled_up(tmp_path)(input_ids=ids, shift_labels=torch.tensor([[3, label, -100]]))


def test_another_model_says_by_its_configuration_what_fills_up_its_table():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=WINDOW, initializer_range=0.5, pad_token_id=0,
    )  # fmt: skip
    llama, tokenizer = AutoModelForCausalLM.from_config(config).eval(), build_tokenizer(ITEMS)
    for open_it in (Recommender, lambda model, tokenizer: pipeline("next-item", model=model, tokenizer=tokenizer)):
        with pytest.raises(ValueError, match=r"has 62 tokens, the model 128.*set num_items to 60 in its config\.json"):
            open_it(llama, tokenizer)
    llama.config.num_items = NUM
    recommender = Recommender(llama, tokenizer)
    with torch.no_grad():
        expected = llama(torch.tensor([[5, 9]])).logits[0, -1, 2:62].softmax(0)
    pipe = pipeline("next-item", model=llama, tokenizer=tokenizer, device="cpu")
    for found in (
        [astuple(one) for one in recommender.recommend(["i3", "i7"], 999, exclude_seen=False)],
        [astuple(one) for one in Session(recommender, ["i3", "i7"]).recommend(999, exclude_seen=False)],
        [tuple(one.values()) for one in pipe(["i3", "i7"], top_k=999, exclude_seen=False)],
    ):
        assert dict(found) == pytest.approx(dict(zip(ITEMS, expected.tolist(), strict=True)), rel=1e-4)


def test_only_items_keeps_what_it_is_given():
    logits = torch.zeros(2, 5)
    found = only_items(logits, (2, 4))
    assert found.softmax(-1).tolist() == [[0, 0, 0.5, 0.5, 0]] * 2
    assert not logits.any()
    check_tokenizer(4, LSRMConfig(vocab_size=5, num_items=2))


def test_a_score_of_minus_infinity_is_no_sign_of_divergence():
    refuse_diverged(torch.tensor([0.0, -torch.inf]))
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="a score is NaN or infinite: the model has diverged"):
            refuse_diverged(torch.tensor([0.0, bad]))
