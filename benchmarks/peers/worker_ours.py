"""sr_transformers through its public API: `prepare`, `LSRMTrainer`, `evaluate`, `Recommender`."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from worker import StepClock, latencies, main, throughput

from sr_transformers import (
    LSRMConfig,
    LSRMForCausalLM,
    LSRMTrainer,
    LSRMTrainingArguments,
    ModelScorer,
    PreparedData,
    Recommender,
    evaluate,
    prepare,
)


def prepared(settings: dict[str, Any]) -> PreparedData:
    """The log, prepared once and kept beside it."""
    folder = Path(settings["log"]).with_suffix("")
    return PreparedData(folder) if folder.exists() else prepare(settings["log"], folder)


def new_model(settings: dict[str, Any], vocab_size: int) -> LSRMForCausalLM:
    """A fresh model of the benchmark's size."""
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=vocab_size,
        hidden_size=settings["width"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        max_position_embeddings=settings["window"],
        embedding_dropout=0.2,
        attention_dropout=0.0,
        residual_dropout=0.2,
    )
    return LSRMForCausalLM(config)


class Watch(TrainerCallback):
    """Feeds the clock: targets from the sampler's plan, the loss from the log, a step from end to end."""

    def __init__(self, clock: StepClock):
        self.clock, self.targets = clock, iter(())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = self.clock.step(next(self.targets))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.clock.losses.append(logs["loss"])


def train_model(settings: dict[str, Any]) -> tuple[LSRMTrainer, StepClock]:
    """Steady steps of the real training path on a prepared folder, full softmax."""
    data = prepared(settings)
    model = new_model(settings, data.vocab_size)
    clock = StepClock(settings)
    output = tempfile.mkdtemp(prefix="benchmark-")
    arguments = LSRMTrainingArguments(
        output_dir=output,
        per_device_train_batch_size=max(1, round(settings["targets_per_step"] / settings["window"])),
        row_width=settings["window"],
        num_train_epochs=1000,
        precision=settings["precision"],
        torch_compile=settings.get("compile", False),
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        warmup_steps=0,
        switch_optimizer=False,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        logging_steps=1,
        disable_tqdm=True,
        **settings.get("arguments", {}),
    )
    watch = Watch(clock)
    trainer = LSRMTrainer(model, arguments, train_dataset=data.train_dataset(), callbacks=[watch])

    def planned():
        epoch = 0
        while True:
            trainer.sampler.set_epoch(epoch)
            yield from [sum(int(row[:, 2].sum()) for row in rows) for rows in trainer.sampler]
            epoch += 1

    watch.targets = planned()
    try:
        trainer.train()
    finally:
        shutil.rmtree(output)
    return trainer, clock


def training(settings: dict[str, Any]) -> dict[str, Any]:
    """Throughput, and what is needed to hold it against the machine."""
    trainer, clock = train_model(settings)
    config, vocab_size = trainer.model.config, trainer.prepared.vocab_size
    attention = 12 * settings["layers"] * settings["width"] * (settings["window"] + 1) / 2
    weights = sum(parameter.numel() for parameter in trainer.model.parameters())
    return {
        **clock.result(),
        "flops_per_target": 6 * config.num_non_embedding_parameters + 6 * vocab_size * settings["width"] + attention,
        "weights_gradients_adam_gib": 4 * 4 * weights / 2**30,
        "vocab_size": vocab_size,
    }


def gemm(settings: dict[str, Any]) -> dict[str, Any]:
    """The machine's matrix products: best GFLOP/s over a few sizes, the measure that training is held against."""
    best = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rates = []
        for rows, inner, columns in ((4096, 4096, 4096), (6400, 256, 1024), (2048, 2048, 2048)):
            a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
            a @ b
            start, products = time.perf_counter(), 0
            while time.perf_counter() - start < 1.5:
                a @ b
                products += 1
            rates.append(2e-9 * rows * inner * columns * products / (time.perf_counter() - start))
        best[f"gflops_{name}"] = max(rates)
    return best


def products(settings: dict[str, Any]) -> dict[str, Any]:
    """Targets per second if a step were its matrix products alone, forward and both of backward, in buffers that are
    used again; the head 256 targets at a time."""
    targets, width, head_rows = settings["targets_per_step"], settings["width"], min(256, settings["targets_per_step"])
    layers = settings["layers"]
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        seconds = 0.0
        for rows, columns, times in (
            (targets, width, 4 * layers),
            (targets, 4 * width, 2 * layers),
            (head_rows, settings["items"], targets / head_rows),
        ):
            inputs, weights = torch.randn(rows, width).to(dtype), torch.randn(columns, width).to(dtype)
            outputs = torch.empty(rows, columns, dtype=dtype)
            turns = []
            while len(turns) < 3 or sum(turns) < 1.0:
                start = time.perf_counter()
                torch.mm(inputs, weights.t(), out=outputs)
                torch.mm(outputs, weights, out=inputs)
                torch.mm(outputs.t(), inputs, out=weights)
                turns.append(time.perf_counter() - start)
                inputs.fill_(0.1), weights.fill_(0.1)  # products of products would leave the range of numbers
            seconds += times * statistics.median(turns)
        found[f"targets_per_second_{name}"] = targets / seconds
    return found


def evaluation(settings: dict[str, Any]) -> dict[str, Any]:
    """Full ranking of all test targets, seen items removed, HR, NDCG, MRR and coverage at 10 and the loss; once more
    where the first time compiles."""
    data = prepared(settings)
    model = new_model(settings, data.vocab_size)
    compiled = settings.get("compile", False)
    scorer = ModelScorer(model, reuse_memory=True, bf16=settings["precision"] == "bf16", compile=compiled)
    start = time.perf_counter()
    report = evaluate(scorer, data, "test", ks=(10,), filter_seen=True)
    if not compiled:
        return {"users_per_second": report["num_targets"] / report["seconds"]}
    first = time.perf_counter() - start
    report = evaluate(scorer, data, "test", ks=(10,), filter_seen=True)
    found = {"users_per_second": report["num_targets"] / report["seconds"]}
    return {**found, "compile_seconds": first - report["seconds"]}


def serving(settings: dict[str, Any]) -> dict[str, Any]:
    """`Recommender.recommend` for one history, `recommend_batch` for many; compiled too, the latter in bf16."""
    data = prepared(settings)
    model = new_model(settings, data.vocab_size).eval()
    plain = Recommender(model, data.tokenizer)
    compiled = Recommender(model, data.tokenizer, compile=True)
    rounded = Recommender(model, data.tokenizer, bf16=True, compile=True)
    ids = np.arange(len(data.tokenizer) - 2)
    rng = np.random.default_rng(0)
    histories = [rng.choice(ids, settings["window"]).tolist() for _ in range(512)]
    size = settings["batch"]

    def one(recommender: Recommender) -> dict[str, float]:
        return latencies(lambda index: recommender.recommend(histories[index % len(histories)], k=10), settings)

    def many(recommender: Recommender) -> float:
        def batch(index: int) -> int:
            start = index * size % (len(histories) - size + 1)
            return len(recommender.recommend_batch(histories[start : start + size], k=10))

        return throughput(batch, settings["seconds"])

    return {
        **one(plain),
        **{f"compiled_{name}": value for name, value in one(compiled).items()},
        "batched_users_per_second": many(plain),
        "compiled_batched_users_per_second": many(rounded),
    }


def preparation(settings: dict[str, Any]) -> dict[str, Any]:
    """`prepare` from parquet to a folder: order, checks, split, vocabulary, whole histories."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        prepare(settings["log"], Path(folder) / "out")
        return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    tasks = {f.__name__: f for f in (training, evaluation, serving, preparation, gemm, products)}
    main(tasks, ("torch", "transformers", "numpy"))
