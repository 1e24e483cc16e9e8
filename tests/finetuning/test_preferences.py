"""TRL on histories: the loss is the model's own, packed users do not see each other, and what is saved is as before."""

import datasets
import pytest
import torch
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.data import vocabulary
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.finetuning.preferences import as_text, trl_model, trl_tokenizer
from sr_transformers.lsrm.tokenization_lsrm import LSRMTokenizer

LENGTHS = (3, 9, 5, 4, 7, 6, 2, 8)
STEP = {
    "per_device_train_batch_size": 8, "max_steps": 1, "learning_rate": 0.1, "optim": "sgd", "logging_steps": 1,
    "max_grad_norm": 0.0, "disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "lr_scheduler_type": "constant",
}  # fmt: skip


@pytest.fixture
def tokenizer():
    return build_tokenizer([f"item {n}" for n in range(20)])


@pytest.fixture
def folder(tokenizer, tmp_path):
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=22, hidden_size=16, num_hidden_layers=1, max_position_embeddings=12, embedding_dropout=0.0,
        residual_dropout=0.0, initializer_range=0.3,
    )  # fmt: skip
    LSRMForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def histories():
    generator = torch.Generator().manual_seed(5)
    return [[f"item {n}" for n in torch.randint(20, (length,), generator=generator).tolist()] for length in LENGTHS]


def as_ids(tokenizer):
    return [{"input_ids": tokenizer.convert_tokens_to_ids(one)} for one in histories()]


def sft(folder, tokenizer, rows, ready=True, **options):
    """Loss that TRL logs and the weights after one step over all histories."""
    model = LSRMForCausalLM.from_pretrained(folder)
    trainer = SFTTrainer(
        trl_model(model) if ready else model,
        args=SFTConfig(output_dir=str(folder / "sft"), max_length=12, bf16=False, **STEP, **options),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=trl_tokenizer(tokenizer),
    )
    trainer.train()
    return trainer.state.log_history[0]["loss"], trainer


def plain(folder, tokenizer):
    """The same step by transformers' Trainer, whose loss is the model's own."""
    rows = [{**one, "labels": [-100, *one["input_ids"][1:]]} for one in as_ids(tokenizer)]
    arguments = TrainingArguments(str(folder / "plain"), **STEP)
    trainer = Trainer(LSRMForCausalLM.from_pretrained(folder), arguments, DataCollatorForSeq2Seq(tokenizer), rows)
    trainer.train()
    return trainer.state.log_history[0]["loss"], trainer


@pytest.mark.parametrize("kind", ["text", "input_ids", "packed"])
def test_sft_is_the_models_own_loss(folder, tokenizer, kind):
    """In its value and in every weight after a step, also where several users stand in one row."""
    rows = [{"text": as_text(tokenizer, one)} for one in histories()] if kind == "text" else as_ids(tokenizer)
    loss, trainer = sft(folder, tokenizer, rows, packing=kind == "packed")
    if kind == "packed":
        assert trainer.padding_free
        assert any(len(row["seq_lengths"]) > 1 for row in trainer.train_dataset)
    elif kind == "text":
        assert [row["input_ids"] for row in trainer.train_dataset] == [one["input_ids"] for one in as_ids(tokenizer)]
    expected, other = plain(folder, tokenizer)
    assert loss == pytest.approx(expected, abs=1e-5)
    weights = trainer.model.state_dict()
    for name, one in other.model.state_dict().items():
        torch.testing.assert_close(weights[name], one, rtol=1e-4, atol=1e-6)


def test_without_it_padding_gets_a_probability_and_wrapped_users_see_each_other(folder, tokenizer):
    """What the page warns of is so; should TRL mend it, the page is to be mended too."""
    expected, _ = plain(folder, tokenizer)
    assert sft(folder, tokenizer, as_ids(tokenizer), ready=False)[0] > expected + 0.01
    wrapped, _ = sft(folder, tokenizer, as_ids(tokenizer), packing=True, packing_strategy="wrapped")
    assert abs(wrapped - expected) > 0.01


def test_dpo_learns_the_pairs_and_begins_at_the_models_own_scores(folder, tokenizer):
    pairs = [
        {"prompt": one[:-1], "chosen": [one[-1]], "rejected": [f"item {(int(one[-1][5:]) + 1) % 20}"]}
        for one in histories()
    ]
    rows = [{name: as_text(tokenizer, items) for name, items in one.items()} for one in pairs]
    model = trl_model(LSRMForCausalLM.from_pretrained(folder))
    trainer = DPOTrainer(
        model,
        ref_model=trl_model(LSRMForCausalLM.from_pretrained(folder)),
        args=DPOConfig(
            output_dir=str(folder / "dpo"), max_length=12, bf16=False,
            **{**STEP, "max_steps": 60, "learning_rate": 0.02, "optim": "adamw_torch"},
        ),
        train_dataset=datasets.Dataset.from_list(rows), processing_class=trl_tokenizer(tokenizer),
    )  # fmt: skip
    assert trainer.train_dataset[1]["prompt_ids"] == tokenizer.convert_tokens_to_ids(pairs[1]["prompt"])
    assert [len(row["chosen_ids"]) for row in trainer.train_dataset] == [1] * 8
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "logps/chosen" in entry]
    fresh = LSRMForCausalLM.from_pretrained(folder)
    own = []
    for one in pairs:
        ids = torch.tensor([tokenizer.convert_tokens_to_ids(one["prompt"])])
        target = tokenizer.convert_tokens_to_ids(one["chosen"])[0]
        own.append(fresh(ids).logits[0, -1].log_softmax(-1)[target].item())
    assert log[0]["logps/chosen"] == pytest.approx(sum(own) / len(own), abs=1e-4)
    assert log[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)  # both models are one
    assert log[-1]["rewards/accuracies"] == 1.0


def test_what_is_saved_is_a_model_and_a_vocabulary_as_before(folder, tokenizer):
    _, trainer = sft(folder, tokenizer, as_ids(tokenizer))
    trainer.save_model(str(folder / "saved"))
    model, read = LSRMForCausalLM.from_pretrained(folder / "saved"), AutoTokenizer.from_pretrained(folder / "saved")
    assert model.lm_head.bias is None
    assert model.config.eos_token_id is None
    assert model.config.pad_token_id == 0
    assert type(read) is LSRMTokenizer
    assert read.eos_token is None
    before = (folder / "tokenizer_config.json").read_text()
    assert (folder / "saved" / "tokenizer_config.json").read_text() == before
    ids = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(model(ids).logits, trainer.model.eval()(ids).logits)
    assert len(Recommender.from_pretrained(folder / "saved").recommend(["item 1"], k=3)) == 3


def test_what_cannot_be_written_as_text_is_refused(tokenizer, folder):
    with pytest.raises(ValueError, match="item 'item 20' is not in the vocabulary; leave it out"):
        as_text(tokenizer, ["item 1", "item 20"])
    assert as_text(tokenizer, ["item 1", "item 2"]) == "item 1\titem 2\t"
    assert as_text(build_tokenizer(["a", "b"]), ["a", "b"]) == "a b "
    with pytest.raises(ValueError, match="does not separate ids in a text"):
        trl_tokenizer(build_tokenizer([f"a{mark}b" for mark in vocabulary._SEPARATORS]))
    model = trl_model(LSRMForCausalLM.from_pretrained(folder))
    with pytest.raises(ValueError, match="the head has a bias already"):
        trl_model(model)
    reads_more = LSRMForCausalLM(LSRMConfig(vocab_size=22, hidden_size=16, num_hidden_layers=1, history=["recency"]))
    with pytest.raises(ValueError, match=r"it adds scores to those of its head, and TRL would train without them"):
        trl_model(reads_more)
    for blocks in ({"attention_time": True}, {"head": "normalised"}):
        other = LSRMForCausalLM(LSRMConfig(vocab_size=22, hidden_size=16, num_hidden_layers=1, **blocks))
        with pytest.raises(ValueError, match=f"the model has {next(iter(blocks))} .*, of which TRL knows nothing"):
            trl_model(other)
