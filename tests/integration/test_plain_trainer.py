"""transformers' own Trainer and collators on our model: padding on either side predicts nothing and is no target."""

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.data.vocabulary import build_tokenizer

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
