"""`generate` goes on beyond the window, over the most recent items alone, and says nothing that is not so."""

import copy

import pytest
import torch
from transformers import TextStreamer, pipeline
from transformers.utils import logging as transformers_logging

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.training.finish import generation_config

WINDOW = 8


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LSRMConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, max_position_embeddings=WINDOW,
                        initializer_range=0.5)  # fmt: skip
    made = LSRMForCausalLM(config).eval()
    made.generation_config = generation_config(config)
    return made


def step_by_step(model, history, steps):
    """Greedy continuation, each step a call of its own with the most recent items."""
    items = list(history)
    for _ in range(steps):
        items.append(int(model(torch.tensor([items[-WINDOW:]])).logits[0, -1].argmax()))
    return items


@pytest.mark.parametrize("length", [1, 5, 7, 8, 9, 20])
@pytest.mark.parametrize("use_cache", [True, False])
def test_the_oldest_item_goes(model, length, use_cache):
    history = list(range(2, 2 + length))
    found = model.generate(torch.tensor([history]), max_new_tokens=12, use_cache=use_cache)
    assert found.tolist() == [step_by_step(model, history, 12)]
    assert len(set(found[0, length:].tolist())) > 2


def test_padded_histories_slide_each_on_its_own(model):
    long, short = list(range(2, 13)), [20, 21, 22]
    pad = [0] * (len(long) - len(short))
    mask = torch.tensor([[1] * len(long), [0] * len(pad) + [1] * len(short)])
    found = model.generate(torch.tensor([long, pad + short]), attention_mask=mask, max_new_tokens=9)
    assert found.tolist() == [step_by_step(model, long, 9), pad + step_by_step(model, short, 9)]


def test_beams_slide_too(model):
    history = list(range(2, 9))
    beams = model.generate(torch.tensor([history]), max_new_tokens=6, num_beams=3, return_dict_in_generate=True,
                           output_scores=True)  # fmt: skip
    log_p = 0.0
    items = beams.sequences[0].tolist()
    for end in range(len(history), len(items)):
        logits = model(torch.tensor([items[:end][-WINDOW:]])).logits[0, -1]
        log_p += logits.log_softmax(0)[items[end]].item()
    assert float(beams.sequences_scores[0]) == pytest.approx(log_p / 6, abs=1e-5)


def test_a_static_cache_slides_too(model):
    history = list(range(2, 9))
    found = model.generate(torch.tensor([history]), max_new_tokens=6, cache_implementation="static")
    assert found.tolist() == [step_by_step(model, history, 6)]


def test_an_assistant_is_refused_beyond_the_window(model):
    with pytest.raises(ValueError, match=r"beyond the model's window of 8 .* without an assistant"):
        model.generate(torch.tensor([[2, 3, 2, 3, 2, 3]]), max_new_tokens=9, prompt_lookup_num_tokens=2)


def test_no_warning_of_two_lengths_or_of_the_window(model, caplog, recwarn):
    transformers_logging.enable_propagation()
    transformers_logging.warning_once.cache_clear()
    try:
        model.generate(torch.tensor([[2, 3]]), max_new_tokens=9)
        assert not caplog.records
        assert not list(recwarn)
        model.generate(torch.tensor([[2, 3]]), max_new_tokens=9, max_length=4)  # so this hears of what is said
        assert "Both `max_new_tokens`" in caplog.text
    finally:
        transformers_logging.disable_propagation()


def test_unknown_items_in_what_is_continued_are_warned_of(model):
    with pytest.warns(UserWarning, match="2 of the ids to be continued are the unknown token"):
        model.generate(torch.tensor([[2, 1, 3, 1]]), max_new_tokens=2)


def test_pipelines_and_streamers_print_items_apart(model, capsys):
    tokenizer = build_tokenizer([f"i{n}" for n in range(30)])
    history = tokenizer("i1 i7").input_ids
    new = [f"i{token - 2}" for token in step_by_step(model, history, 9)[2:]]
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    (found,) = generator("i1 i7", max_new_tokens=9, do_sample=False)
    assert found["generated_text"].split() == ["i1", "i7", *new]
    model.generate(torch.tensor([history]), max_new_tokens=9, streamer=TextStreamer(tokenizer))
    assert capsys.readouterr().out.split() == ["i1", "i7", *new]


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 2}])
def test_a_diverged_model_generates_nothing(model, options):
    broken = copy.deepcopy(model)
    torch.nn.init.constant_(broken.model.norm.weight, torch.nan)
    with pytest.raises(ValueError, match="a score is NaN or infinite: the model has diverged"):
        broken.generate(torch.tensor([[2, 3]]), max_new_tokens=2, **options)
