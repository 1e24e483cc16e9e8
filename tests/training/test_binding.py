import shutil

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments, PreparedData, Recipe, train
from sr_transformers.data.vocabulary import build_tokenizer, item_list
from sr_transformers.lsrm.identity_lsrm import items_fingerprint
from sr_transformers.training.binding import bind

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 8}


def made(data, **more):
    return LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, **TINY, **more))


@pytest.mark.parametrize(("choice", "kept"), [(None, False), (True, True), (False, False)])
def test_a_model_keeps_whose_items_it_learns_and_how_it_is_ranked(markov_prepared, choice, kept, tmp_path):
    model = made(markov_prepared)
    assert (model.config.items_fingerprint, model.config.filter_seen) == (None, None)
    bind(model, markov_prepared, choice)  # a log with repeats
    model.save_pretrained(tmp_path)
    config = LSRMConfig.from_pretrained(tmp_path)
    assert config.items_fingerprint == markov_prepared.items_fingerprint
    assert config.items_fingerprint == items_fingerprint(item_list(markov_prepared.tokenizer))
    assert config.filter_seen is kept


def test_any_head_keeps_it(markov_prepared, tmp_path):
    config = LlamaConfig(vocab_size=markov_prepared.vocab_size, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                         num_attention_heads=1)  # fmt: skip
    model = LlamaForCausalLM(config)
    bind(model, markov_prepared, None)
    model.save_pretrained(tmp_path)
    again = LlamaConfig.from_pretrained(tmp_path)
    assert again.items_fingerprint == markov_prepared.items_fingerprint
    assert again.filter_seen is False


def test_a_model_of_other_items_is_not_trained_on(markov_prepared, tmp_path):
    other = items_fingerprint(item_list(markov_prepared.tokenizer)[::-1])
    model = made(markov_prepared, items_fingerprint=other)
    with pytest.raises(ValueError, match=r"the model's items are not those of .* carry it over with `finetune`"):
        bind(model, markov_prepared, None)
    arguments = LSRMTrainingArguments(output_dir=str(tmp_path / "run"), precision="fp32")
    with pytest.raises(ValueError, match="carry it over with `finetune`"):
        LSRMTrainer(model, arguments, train_dataset=markov_prepared.train_dataset())


def test_a_log_with_the_vocabulary_of_another_is_refused_before_anything_is_written(markov_prepared, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(markov_prepared.path, folder)
    for other in ([1, 2, 3], item_list(markov_prepared.tokenizer)[::-1]):  # of another size; as large
        build_tokenizer(other).save_pretrained(folder / "tokenizer")
        with pytest.raises(ValueError, match="tokenizer"):
            train(Recipe("tiny", dict(TINY)), PreparedData(folder), tmp_path / "run")
        assert not (tmp_path / "run").exists()
