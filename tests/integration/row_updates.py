"""Started by test_processes on two processes, a table trained by rows is the same in both, bit by bit."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import set_seed

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments, PreparedData


def run(data: PreparedData, folder: Path, checkpoint: str | None = None, **arguments: object) -> LSRMTrainer:
    """A trained trainer, with batches of which one process's may be empty of an item that the other has."""
    set_seed(3)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
    settings = {"num_negatives": 8, "weight_decay": 0.0, "switch_optimizer": False, "precision": "fp32", "seed": 3}
    settings |= {"warmup_steps": 0, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "max_grad_norm": 0.3}
    settings |= {"gradient_accumulation_steps": 2, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 3}
    settings |= {"save_steps": 3, "load_best_model_at_end": False, "save_total_limit": None, "disable_tqdm": True}
    trainer = LSRMTrainer(
        LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, **shape)),
        LSRMTrainingArguments(str(folder), **{**settings, **arguments}),
        train_dataset=data.train_dataset(),
        eval_dataset=data.eval_dataset("validation"),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def table(trainer: LSRMTrainer) -> torch.Tensor:
    """The table, which all processes must have alike."""
    mine = trainer.model.lm_head.weight.detach().clone()
    all_tables = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(all_tables, mine)
    assert all(torch.equal(one, mine) for one in all_tables)
    return mine


def main(log: str, output: str) -> None:
    """Compares one step with that of DDP, and a resumed run with a whole one."""
    data, folder = PreparedData(log), Path(output)
    smooth = {"max_steps": 1, "adam_beta2": 0.0, "adam_epsilon": 1e-4}  # Adam's first step is then that of lazy Adam
    dense = run(data, folder / "dense", **smooth)
    lazy = run(data, folder / "lazy", **smooth, table_updates="lazy_adam")
    torch.testing.assert_close(table(lazy), table(dense), rtol=1e-4, atol=1e-6)
    assert dist.get_world_size() == 2
    for kind in ("lazy_adam", "row_adagrad"):
        whole = run(data, folder / kind, max_steps=6, table_updates=kind)
        checkpoint = str(folder / kind / "checkpoint-3")
        resumed = run(data, folder / f"{kind}-again", checkpoint, max_steps=6, table_updates=kind)
        assert torch.equal(table(resumed), table(whole))
    print(f"rank {dist.get_rank()} agrees", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
