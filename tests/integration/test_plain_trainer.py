"""transformers' own Trainer and collators on our model: padding on either side predicts nothing and is no target."""

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from sr_transformers import LSRMConfig, LSRMForCausalLM, evaluate
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.evaluation.model_scorer import ModelScorer

LENGTHS = (2, 9, 3, 5, 9, 4, 2, 7)


def rows(labels):
    generator = torch.Generator().manual_seed(5)
    histories = [torch.randint(2, 22, (length,), generator=generator).tolist() for length in LENGTHS]
    return [{"input_ids": ids, **({"labels": [-100, *ids[1:]]} if labels else {})} for ids in histories]


def trained(folder, batch, accumulation, side, labels):
    """Loss that the Trainer logs and weights after one step over all eight rows."""
    tokenizer = build_tokenizer([f"i{n}" for n in range(20)])
    tokenizer.padding_side = side
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=22, hidden_size=16, num_hidden_layers=1, max_position_embeddings=12,
        embedding_dropout=0.0, residual_dropout=0.0, initializer_range=0.3,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        max_steps=1,
        optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", max_grad_norm=0.0, logging_steps=1,
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    collator = DataCollatorForSeq2Seq(tokenizer) if labels else DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = Trainer(LSRMForCausalLM(config), arguments, collator, rows(labels))
    trainer.train()
    return trainer.state.log_history[0]["loss"], trainer.model.state_dict()


def by_hand():
    """Mean over all targets, each history on its own."""
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=22, hidden_size=16, num_hidden_layers=1, max_position_embeddings=12,
        embedding_dropout=0.0, residual_dropout=0.0, initializer_range=0.3,
    )  # fmt: skip
    model = LSRMForCausalLM(config).eval()
    total = 0.0
    for row in rows(False):
        ids = torch.tensor([row["input_ids"]])
        total -= model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).sum().item()
    return total / sum(length - 1 for length in LENGTHS)


@pytest.mark.parametrize(("side", "labels"), [("right", False), ("right", True), ("left", True)])
def test_batch_and_accumulation_and_side_change_nothing(tmp_path, side, labels):
    _, expected = trained(tmp_path / "reference", 8, 1, "right", labels=False)
    for batch, accumulation in ((1, 8), (4, 2), (8, 1)):
        loss, weights = trained(tmp_path / f"{batch}", batch, accumulation, side, labels)
        assert loss == pytest.approx(by_hand(), abs=1e-4)
        for name, one in weights.items():
            torch.testing.assert_close(one, expected[name], rtol=1e-4, atol=1e-6)


def test_padded_on_the_left_with_labels_right_after_padding_it_is_right_or_refused(tmp_path):
    """The Trainer counts those labels; that can be mended within one micro-batch, and not across several."""
    for batch, accumulation in ((1, 8), (8, 1)):
        loss, _ = trained(tmp_path / f"{batch}", batch, accumulation, "left", labels=False)
        assert loss == pytest.approx(by_hand(), abs=1e-4)
    with pytest.raises(ValueError, match="first item and of padding to -100"):
        trained(tmp_path / "refused", 4, 2, "left", labels=False)


def make_plain(data, folder, **more):
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=data.vocab_size, hidden_size=16, num_hidden_layers=1, max_position_embeddings=20,
        embedding_dropout=0.0, residual_dropout=0.0,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=3, per_device_train_batch_size=32, learning_rate=1e-2, seed=3,
        eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    return Trainer(
        LSRMForCausalLM(config), arguments, DataCollatorForSeq2Seq(data.tokenizer), data.train_dataset(20),
        data.eval_dataset("validation", 20), **more,
    )  # fmt: skip


def test_it_validates_keeps_the_best_and_computes_metrics(markov_prepared, tmp_path):
    """On the data sets of a prepared log; the loss is that of full ranking: no history is cut."""

    def ranks(logits, labels):
        last = labels.ne(-100).long().argmax(-1)
        scores, target = logits[range(len(labels)), last - 1], labels[range(len(labels)), last][:, None]
        return (scores >= scores.gather(1, target)).sum(1)

    trainer = make_plain(
        markov_prepared, tmp_path, preprocess_logits_for_metrics=ranks,
        compute_metrics=lambda found: {"hr@1": float((found.predictions == 1).mean())},
    )  # fmt: skip
    assert trainer.label_names == ["labels"]
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_loss"] < before - 0.5
    expected = evaluate(ModelScorer(trainer.model), markov_prepared, "validation", filter_seen=False)["metrics"]
    assert found["eval_loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert found["eval_hr@1"] == pytest.approx(expected["hr@1"], abs=1e-9)
    best = min(entry["eval_loss"] for entry in trainer.state.log_history[:-1] if "eval_loss" in entry)
    assert found["eval_loss"] == pytest.approx(best, abs=1e-6)


def test_labels_made_by_the_collator_are_enough(tmp_path):
    tokenizer = build_tokenizer([f"i{n}" for n in range(20)])
    torch.manual_seed(0)
    model = LSRMForCausalLM(LSRMConfig(vocab_size=22, hidden_size=16, num_hidden_layers=1, max_position_embeddings=12))
    trainer = Trainer(
        model, TrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True),
        DataCollatorForLanguageModeling(tokenizer, mlm=False), eval_dataset=rows(False),
        compute_metrics=lambda found: {"shape": found.predictions.shape},
    )  # fmt: skip
    found = trainer.evaluate()
    assert found["eval_shape"] == (8, 9, 22)
    ids = [torch.tensor([row["input_ids"]]) for row in rows(False)]
    total = -sum(model(one).logits[0, :-1].log_softmax(-1).gather(1, one[0, 1:, None]).sum().item() for one in ids)
    assert found["eval_loss"] == pytest.approx(total / sum(length - 1 for length in LENGTHS), abs=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_the_best_weights_come_back_without_a_warning(tmp_path, monkeypatch, tied):
    """Tied weights are stored once, and are not missing; untied ones are all stored."""
    said = []
    monkeypatch.setattr("transformers.trainer.logger.warning", lambda message, *args: said.append(message))
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=22, hidden_size=16, num_hidden_layers=1, max_position_embeddings=12, tie_word_embeddings=tied
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch", learning_rate=0.1,
        load_best_model_at_end=True, metric_for_best_model="never", greater_is_better=True, use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    tokenizer = build_tokenizer([f"i{n}" for n in range(20)])
    values = iter([1.0, 0.0])
    trainer = Trainer(
        LSRMForCausalLM(config), arguments, DataCollatorForSeq2Seq(tokenizer), rows(True), rows(True),
        compute_metrics=lambda found: {"never": next(values)},
    )  # fmt: skip
    trainer.train()
    assert not [message for message in said if "missing keys" in message]
    model = trainer.model
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    first = LSRMForCausalLM.from_pretrained(tmp_path / "checkpoint-1")
    for name, one in first.state_dict().items():
        assert torch.equal(one, model.state_dict()[name])
