"""The HF Trainer for sequential recommenders: packed batches, full-ranking validation, two optimizer phases, and
checkpoints that survive being killed at any moment."""

import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, ProgressCallback, Trainer
from transformers.optimization import get_scheduler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from sr_transformers.data.batches import (
    FLAT,
    ROWS,
    EpochBatchSampler,
    EpochDataLoader,
    NegativeSampler,
    PackingCollator,
    WindowDataset,
)
from sr_transformers.data.histories import PreparedData
from sr_transformers.data.packing import LAST_POSITION
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.evaluator import add_users
from sr_transformers.evaluation.metrics import RankingTotals
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.training.arguments import LSRMTrainingArguments
from sr_transformers.training.phases import SGD, TrainingPhases
from sr_transformers.training.progress import TrainingProgress

COMPLETE = "COMPLETE"  # a checkpoint without this file was being written when its run died
EVALUATION_KS = (1, 5, 10, 50)


class TargetDataset(Dataset):
    """The held-out targets of a prepared log, as the Trainer's `eval_dataset`.

    Args:
        split: "validation" or "test".
    """

    def __init__(self, data: PreparedData, split: str):
        self.data, self.split, self.targets = data, split, data.targets(split)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[int, int]:
        history, position = self.targets[index].tolist()
        return history, position


class LSRMTrainer(Trainer):
    """Trains a causal language model on a prepared log.

    Args:
        model: an `LSRMForCausalLM`, or another head that takes `shift_labels`.
        args: what to do.
        data: the prepared log; validation runs on its validation targets.
        callbacks: further callbacks.

    Raises:
        ValueError: if the model's vocabulary is not the log's.
    """

    args: LSRMTrainingArguments
    model: PreTrainedModel
    train_dataset: WindowDataset
    eval_dataset: TargetDataset

    def __init__(
        self, model: PreTrainedModel, args: LSRMTrainingArguments, data: PreparedData, callbacks: list | None = None
    ):
        if model.config.vocab_size != data.vocab_size:
            raise ValueError(
                f"the model has {model.config.vocab_size} tokens, the prepared log {data.vocab_size}; "
                "build the model with vocab_size=data.vocab_size."
            )
        self.prepared = data
        self.window = model.config.max_position_embeddings
        self.phases = TrainingPhases(
            args.metric_for_best_model, bool(args.greater_is_better), args.patience, args.switch_optimizer
        )
        flat = args.layout == FLAT or (args.layout == "auto" and "flash" in (model.config._attn_implementation or ""))
        negatives = None
        if args.num_negatives:
            negatives = NegativeSampler(data.item_counts, args.num_negatives, args.negative_power, args.seed)
        width = args.row_width or self.window
        collator = PackingCollator(width, FLAT if flat else ROWS, args.objective == LAST_POSITION, negatives)
        self.sampler = EpochBatchSampler(
            data.train_lengths,
            self.window,
            width,
            args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            args.data_seed if args.data_seed is not None else args.seed,
            args.objective,
            args.gradient_accumulation_steps,
            args.world_size,
            args.process_index,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=WindowDataset(data, self.sampler.num_rows),
            eval_dataset=TargetDataset(data, "validation"),
            processing_class=data.tokenizer,
            callbacks=[self.phases, *(callbacks or [])],
        )
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(TrainingProgress())

    # Data

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process. Not handed to accelerate: the sampler knows ranks, and must not be cut again."""
        return EpochDataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    # Optimizer phases

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Adam, or SGD once the run has switched."""
        if self.optimizer is None and self._phase() == SGD:
            settings = {"lr": self.args.sgd_learning_rate, "momentum": self.args.sgd_momentum}
            self.optimizer_cls_and_kwargs = (torch.optim.SGD, settings)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of the arguments for Adam, a constant rate for SGD."""
        if self.lr_scheduler is None and self._phase() == SGD:
            self.lr_scheduler = get_scheduler("constant", optimizer or self.optimizer)  # type: ignore[arg-type]
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _phase(self) -> str:
        # Before on_train_begin only the (loaded) state knows; later the callback is ahead of the last checkpoint.
        return SGD if self.phases.phase == SGD and self.state.global_step else TrainingPhases.phase_in(self.state)

    def _switch_to_sgd(self) -> None:
        if self.state.best_model_checkpoint is not None:
            self._load_best_model()
        self.phases.switched(self.state.global_step)
        self.accelerator._optimizers.remove(self.optimizer)
        self.optimizer = self.lr_scheduler = None
        self.create_optimizer(self.model_wrapped if self.is_fsdp_enabled else None)
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)
        self.create_scheduler(self.state.max_steps)
        self.callback_handler.optimizer, self.callback_handler.lr_scheduler = self.optimizer, self.lr_scheduler
        self.log({"switched_to_sgd_at": float(self.state.global_step)})

    # Evaluation

    def evaluate(  # type: ignore[override]
        self,
        eval_dataset: TargetDataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Full ranking of all targets; no logits are kept.

        Returns:
            `{prefix}_loss` (nats, mean over targets, over all processes), `_hr@k`, `_ndcg@k`, `_mrr`, `_coverage@10`,
            `_runtime` in seconds.
        """
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        start = time.perf_counter()
        totals = self.rank(dataset)
        num_items = dataset.data.vocab_size - NUM_SPECIAL
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in totals.metrics(num_items).items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - start
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.phases.wants_switch:
            self._switch_to_sgd()
        return metrics

    def rank(self, dataset: TargetDataset, ks: tuple[int, ...] = EVALUATION_KS) -> RankingTotals:
        """Totals over all targets of a data set, the work shared by the processes."""
        data = dataset.data
        totals = RankingTotals(ks, data.vocab_size)
        filter_seen = not data.has_repeats if self.args.filter_seen is None else self.args.filter_seen
        # A sharded model computes in step on all processes, so there every process ranks every target.
        shared = self.args.world_size > 1 and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        targets = dataset.targets[self.args.process_index :: self.args.world_size] if shared else dataset.targets
        with self.compute_loss_context_manager():
            add_users(totals, ModelScorer(self.model, self.window), data, targets, filter_seen)
        if shared:
            vector = torch.from_numpy(totals.vector()).to(self.args.device)
            totals.load_vector(self.accelerator.reduce(vector, "sum").cpu().numpy())
        return totals

    # Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process has written its part
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            (folder / COMPLETE).touch()


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint that was written whole, or None."""
    found = [
        (int(folder.name.rsplit("-", 1)[1]), folder)
        for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (folder / COMPLETE).exists()
    ]
    return str(max(found)[1]) if found else None
