"""Plain transformers: GPT-2 on padded batches with the HF Trainer, and the loops one writes by hand around it."""

import shutil
import tempfile
import time
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from worker import StepClock, latencies, main, read_histories, throughput

PAD = 0


def new_model(settings: dict[str, Any], num_items: int) -> GPT2LMHeadModel:
    """GPT-2 over items, numbered from 1; 0 is padding."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=num_items + 1,
        n_positions=settings["window"] + 1,
        n_embd=settings["width"],
        n_layer=settings["layers"],
        n_head=settings["heads"],
        embd_pdrop=0.2,
        resid_pdrop=0.2,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=PAD,
    )
    return GPT2LMHeadModel(config)


def pad(sequences: list[np.ndarray], width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Items and mask, `(B, width)`, padded on the right; as wide as the longest by default."""
    width = width or max(map(len, sequences))
    ids, mask = np.full((len(sequences), width), PAD, np.int64), np.zeros((len(sequences), width), np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence + 1
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


class Watch(TrainerCallback):
    """Feeds the clock; batches are collated one ahead, so their targets wait in line.

    transformers divides a batch's loss by its labels, of which the first of every row is no target: undone here.
    """

    def __init__(self, clock: StepClock):
        self.clock, self.waiting, self.done = clock, [], 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = self.clock.step(self.waiting[self.done][0])
        self.done += 1

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            targets, labels = self.waiting[self.done - 1]
            self.clock.losses.append(logs["loss"] * labels / targets)


def train_model(settings: dict[str, Any]) -> tuple[GPT2LMHeadModel, StepClock, list[np.ndarray]]:
    """The HF Trainer on the last 51 training items of every user; each batch padded to its longest, or if the model is
    compiled to 51, so that there is one graph."""
    histories, num_items = read_histories(settings)
    sequences = [history[:-2][-settings["window"] - 1 :] for history in histories if len(history) >= 4]
    watch = Watch(StepClock(settings))
    compiled = settings.get("compile", False)

    def collate(rows: list[np.ndarray]) -> dict[str, torch.Tensor]:
        ids, mask = pad(rows, settings["window"] + 1 if compiled else None)
        watch.waiting.append((int(mask[:, 1:].sum()), int(mask.sum())))
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    output = tempfile.mkdtemp(prefix="benchmark-")
    arguments = TrainingArguments(
        output_dir=output,
        per_device_train_batch_size=settings["sequences"],
        num_train_epochs=1000,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=True,
        bf16=settings["precision"] == "bf16",
        torch_compile=compiled,
        dataloader_drop_last=compiled,
    )
    model = new_model(settings, num_items)
    trainer = Trainer(model, arguments, data_collator=collate, train_dataset=sequences, callbacks=[watch])
    try:
        trainer.train()
    finally:
        shutil.rmtree(output)
    return model, watch.clock, histories


def training(settings: dict[str, Any]) -> dict[str, Any]:
    """Throughput."""
    return train_model(settings)[1].result()


def last_logits(model: GPT2LMHeadModel, sequences: list[np.ndarray]) -> torch.Tensor:
    """`(B, V)` logits after the last item of each sequence; the head sees one position a row."""
    ids, mask = pad(sequences)
    hidden = model.transformer(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return model.lm_head(hidden[torch.arange(len(ids)), mask.sum(1) - 1])


@torch.inference_mode()
def evaluation(settings: dict[str, Any]) -> dict[str, Any]:
    """A hand-written loop: seen items removed, rank of the target, HR@10 and NDCG@10."""
    histories, num_items = read_histories(settings)
    model = new_model(settings, num_items).eval()
    batch_size = 256 if num_items < 100_000 else 64
    hits = gain = 0.0
    start = time.perf_counter()
    for first in range(0, len(histories), batch_size):
        rows = histories[first : first + batch_size]
        scores = last_logits(model, [row[:-1][-settings["window"] :] for row in rows])
        targets = torch.tensor([int(row[-1]) + 1 for row in rows])
        wanted = scores.gather(1, targets[:, None])
        places = np.repeat(np.arange(len(rows)), [len(row) - 1 for row in rows])
        scores[places, np.concatenate([row[:-1] for row in rows]) + 1] = -torch.inf
        scores[:, PAD] = -torch.inf
        scores.scatter_(1, targets[:, None], wanted)
        best = scores.topk(10, dim=1).indices
        where = (best == targets[:, None]).nonzero()[:, 1]
        hits += len(where)
        gain += float((1 / torch.log2(where + 2.0)).sum())
    seconds = time.perf_counter() - start
    return {
        "users_per_second": len(histories) / seconds,
        "hr@10": hits / len(histories),
        "ndcg@10": gain / len(histories),
    }


@torch.inference_mode()
def serving(settings: dict[str, Any]) -> dict[str, Any]:
    """One history by hand: tensor, forward, seen items removed, topk; and batches of them."""
    num_items = settings["items"]
    model = new_model(settings, num_items).eval()
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, num_items, settings["window"]) for _ in range(512)]
    size = settings["batch"]

    def top(rows: list[np.ndarray]) -> list[list[int]]:
        scores = last_logits(model, rows)
        for row, history in enumerate(rows):
            scores[row, history + 1] = -torch.inf
        return scores.topk(10, dim=1).indices.tolist()

    def batch(index: int) -> int:
        start = index * size % (len(histories) - size + 1)
        return len(top(histories[start : start + size]))

    return {
        **latencies(lambda index: top([histories[index % len(histories)]]), settings),
        "batched_users_per_second": throughput(batch, settings["seconds"]),
    }


if __name__ == "__main__":
    main({f.__name__: f for f in (training, evaluation, serving)}, ("torch", "transformers", "numpy"))
