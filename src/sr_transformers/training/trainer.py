"""The HF Trainer for sequential recommenders: packed batches, full-ranking validation, two optimizer phases, and
checkpoints that survive being killed at any moment."""

import datetime
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, Trainer
from transformers.optimization import get_scheduler
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

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
from sr_transformers.data.past_inputs import PastInputs
from sr_transformers.data.ties import shuffled_baskets
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID, UNK_ID
from sr_transformers.evaluation.evaluator import add_users
from sr_transformers.evaluation.metrics import RankingTotals
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.hub.model_card import CardOptions
from sr_transformers.hub.publish import publish
from sr_transformers.hub.upload import make_repo
from sr_transformers.records import RUN_FILE
from sr_transformers.training.arguments import EVALUATION_KS, LSRMTrainingArguments, without_traces
from sr_transformers.training.binding import bind
from sr_transformers.training.checkpoints import (
    COMPLETE,
    best_beside,
    checkpoints,
    last_complete_checkpoint,
    mark_complete,
    verify_checkpoint,
)
from sr_transformers.training.finish import finish, run_settings
from sr_transformers.training.phases import SGD, TrainingPhases
from sr_transformers.training.preflight import check_validation
from sr_transformers.training.progress import TrainingProgress


class TargetDataset(Dataset):
    """The held-out targets of a prepared log, as the Trainer's `eval_dataset`.

    Args:
        split: "validation" or "test".
    """

    def __init__(self, data: PreparedData, split: str):
        self.data, self.split, self.num_targets = data, split, data.num_targets(split)

    def __len__(self) -> int:
        return self.num_targets

    def __getitem__(self, index: int) -> tuple[int, int]:
        history, position = self.data.targets(self.split, index, index + 1)[0].tolist()
        return history, position


class LSRMTrainer(Trainer):
    """Trains a causal language model on a prepared log.

    Args:
        model: an `LSRMForCausalLM`, or another head that takes `shift_labels`.
        args: what to do.
        data: the prepared log; validation runs on its validation targets.
        callbacks: further callbacks.

    Raises:
        ValueError: if the model's items are not the log's, or if arguments and attention backend do not fit.
    """

    args: LSRMTrainingArguments
    model: PreTrainedModel
    train_dataset: WindowDataset
    eval_dataset: TargetDataset

    def __init__(
        self, model: PreTrainedModel, args: LSRMTrainingArguments, data: PreparedData, callbacks: list | None = None
    ):
        bind(model, data.verified(), args.filter_seen)
        for name, fixed in (("pad_token_id", PAD_ID), ("unk_token_id", UNK_ID)):
            if getattr(model.config, name, None) not in (None, fixed):
                raise ValueError(
                    f"the model's {name} is {getattr(model.config, name)}, an item of the log, in which this token is "
                    f"{fixed}; leave {name} out."
                )
        if args.num_negatives >= data.vocab_size - NUM_SPECIAL:
            raise ValueError(
                f"num_negatives is {args.num_negatives}, but the log has {data.vocab_size - NUM_SPECIAL} items: use 0, "
                "the full softmax, which is exact and costs less."
            )
        self.prepared = data
        self.settings = run_settings(model, args, data)
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.window = model.config.max_position_embeddings
        self.phases = TrainingPhases(
            args.metric_for_best_model, bool(args.greater_is_better), args.patience, args.switch_optimizer
        )
        layout = _layout(args, model)
        negatives = None
        if args.num_negatives:
            negatives = NegativeSampler(data.item_counts, args.num_negatives, args.negative_power, args.seed)
        width = self.window if args.row_width is None else args.row_width
        past_inputs = PastInputs(model.config) if getattr(model.config, "history", ()) else None
        collator = PackingCollator(width, layout, args.objective == LAST_POSITION, negatives, past_inputs)
        seed = args.data_seed if args.data_seed is not None else args.seed
        shuffled = shuffled_baskets(data, seed, model.config) if args.shuffle_baskets else None
        self.sampler = EpochBatchSampler(
            data.train_lengths,
            self.window,
            width,
            args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            seed,
            args.objective,
            args.gradient_accumulation_steps,
            args.world_size,
            args.process_index,
            data.shard_bounds,
            shuffled,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=WindowDataset(shuffled or data, self.sampler.num_rows, past_inputs),
            eval_dataset=TargetDataset(data, "validation"),
            processing_class=data.tokenizer,
            callbacks=[self.phases, *(callbacks or [])],
        )
        if self.is_deepspeed_enabled and args.switch_optimizer:
            raise ValueError("DeepSpeed cannot change its optimizer; train with switch_optimizer false.")
        if args.n_gpu > 1:
            raise ValueError(
                f"one process sees {args.n_gpu} GPUs: start a process for each with `accelerate launch`, or choose one "
                "with CUDA_VISIBLE_DEVICES."
            )
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(TrainingProgress())
        self.pop_callback(PrinterCallback)  # without bars nothing is printed: run.json has every number

    # Data

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process. Not handed to accelerate: the sampler knows ranks, and must not be cut again."""
        return EpochDataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def targets(self, split: str) -> TargetDataset:
        """The held-out targets of "validation" or "test"."""
        return TargetDataset(self.prepared, split)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains, after a look at all that would make it fail or go wrong at its end.

        Args:
            resume_from_checkpoint: a folder; or True: the newest whole one of `args.output_dir`.
            args, kwargs: as transformers has them.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if there is nothing to validate on though the arguments ask for validation, or if files of the
                checkpoint are missing or were changed.
        """
        if self.args.eval_strategy != "no":
            check_validation(self.prepared)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise FileNotFoundError(f"{self.args.output_dir} has no complete checkpoint to go on from.")
        if resume_from_checkpoint:
            verify_checkpoint(resume_from_checkpoint)
            self._best_checkpoint = best_beside(resume_from_checkpoint)
        return super().train(resume_from_checkpoint or None, *args, **kwargs)

    def _init_training_state(
        self, max_steps: int, updates: int, epochs: int, checkpoint: str | None, trial: Any
    ) -> Any:
        result = super()._init_training_state(max_steps, updates, epochs, checkpoint, trial)
        if checkpoint is not None:
            self.state.best_model_checkpoint = self._best_checkpoint
        return result

    # Optimizer phases

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Adam, or SGD once the run has switched."""
        if not self.phases.active:
            self.phases.restore(self.state)
        sgd = {"lr": self.args.sgd_learning_rate, "momentum": self.args.sgd_momentum}
        self.optimizer_cls_and_kwargs = (torch.optim.SGD, sgd) if self.phases.phase == SGD else None
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of the arguments for Adam, a constant rate for SGD."""
        if self.lr_scheduler is None and self.phases.phase == SGD:
            self.lr_scheduler = get_scheduler("constant", optimizer or self.optimizer)  # type: ignore[arg-type]
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # transformers asks whether to stop only after an update; a run that was over must not make another.
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

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
            `{prefix}_loss` (nats, mean over targets, over all processes), `_hr@k`, `_ndcg@k`, `_mrr`, `_coverage@k`,
            `_runtime` in seconds.
        """
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        start = time.perf_counter()
        totals, _ = self.rank(dataset)
        num_items = dataset.data.vocab_size - NUM_SPECIAL
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in totals.metrics(num_items).items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - start
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.phases.wants_switch:
            self._switch_to_sgd()
        return metrics

    def rank(self, dataset: TargetDataset, ks: tuple[int, ...] = EVALUATION_KS) -> tuple[RankingTotals, np.ndarray]:
        """Totals over all targets of a data set and `(M,)` ranks, int64; the work is shared by the processes."""
        data, split = dataset.data, dataset.split
        totals, ranks = RankingTotals(ks, data.vocab_size), np.zeros(data.num_targets(split), np.int64)
        # A sharded model computes in step on all processes, so there every process ranks every target.
        shared = self.args.world_size > 1 and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        shard = (self.args.process_index, self.args.world_size) if shared else (0, 1)
        with self.compute_loss_context_manager():
            scorer = ModelScorer(self.model, self.window, reuse_memory=True)
            add_users(totals, scorer, data, split, data.filters_seen(self.args.filter_seen), shard, ranks=ranks)
        if shared:  # what a process has not ranked is 0
            totals.load_vector(self._sum(totals.vector()))
            ranks = self._sum(ranks)
        return totals, ranks

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return self.accelerator.reduce(torch.from_numpy(values).to(self.args.device), "sum").cpu().numpy()

    # The Hub

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        options: CardOptions | None = None,
    ) -> str | None:
        """Publishes the finished run in `args.output_dir` as `args.hub_model_id`: see `sr_transformers.publish`.

        A run that nobody has finished yet is finished first: its test targets are ranked and run.json is written.

        Args:
            commit_message, blocking: not used; the signature is transformers'.
            token, revision, private: default are those of the arguments (`hub_token`, `hub_revision`,
                `hub_private_repo`).
            options: of the model card.

        Returns:
            Address of the commit; None on all processes but the first.

        Raises:
            ValueError: if `hub_model_id` is not set, or nothing has been trained.
            HubError: if the Hub refuses or cannot be reached.
        """
        if self.args.hub_model_id is None:
            raise ValueError("hub_model_id is not set; give the arguments the name org/name.")
        folder = Path(str(self.args.output_dir))
        if not (folder / RUN_FILE).exists():
            runtimes = [entry["train_runtime"] for entry in self.state.log_history if "train_runtime" in entry]
            if not runtimes:
                raise ValueError("nothing has been trained; call train() first.")
            finish(self, "custom", self.settings, self.started, runtimes[-1])
        if not self.is_world_process_zero():
            return None
        return publish(
            folder,
            self.args.hub_model_id,
            options,
            private=bool(self.args.hub_private_repo if private is None else private),
            branch=revision or self.args.hub_revision or "main",
            token=token or self.args.hub_token,
        )

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository before the training, so that who may not write there hears of it now.

        Raises:
            ValueError: if `hub_model_id` is not set.
            HubError: if the Hub refuses or cannot be reached.
        """
        if self.args.hub_model_id is None:
            raise ValueError("push_to_hub needs hub_model_id; give the arguments the name org/name.")
        if self.is_world_process_zero():
            private = self.args.hub_private_repo if private is None else private
            make_repo(self.args.hub_model_id, bool(private), token or self.args.hub_token)

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # super() pickles the arguments, and what is pickled has no token and names no place.
        arguments = self.args
        self.args = without_traces(arguments)
        try:
            super()._save(output_dir or arguments.output_dir, state_dict)
        finally:
            self.args = arguments

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Old checkpoints go only when the new one is whole, so super() must not remove any.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # every process has written its part
        if self.args.should_save:
            output = Path(self._get_output_dir(trial))
            checkpoint = output / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self._save_state(checkpoint)
            mark_complete(checkpoint)
            self._rotate(output, limit)

    def _save_state(self, checkpoint: Path) -> None:
        """Writes trainer_state.json again: the checkpoint that validated best by its name, for a run may move."""
        best = self.state.best_model_checkpoint
        self.phases.best_checkpoint = None if best is None else Path(best).name
        callbacks: Any = self.state.stateful_callbacks  # by class name, once there is a checkpoint
        callbacks[type(self.phases).__name__] = self.phases.state()
        self.state.best_model_checkpoint = None
        self.state.save_to_json(str(checkpoint / TRAINER_STATE_NAME))
        self.state.best_model_checkpoint = best

    def _rotate(self, output: Path, limit: int | None) -> None:
        """Removes all checkpoints but the newest `limit` and the best."""
        best = self.state.best_model_checkpoint
        for folder in checkpoints(output)[limit:] if limit else []:
            if best is None or folder.name != Path(best).name:
                (folder / COMPLETE).unlink(missing_ok=True)  # first: half a checkpoint must not look whole
                shutil.rmtree(folder)


def _layout(args: LSRMTrainingArguments, model: PreTrainedModel) -> str:
    """Rows or flat, after a look at what the attention backend can do."""
    attention = model.config._attn_implementation or ""
    flash, flex = "flash" in attention, "flex" in attention
    if flash and args.layout == ROWS:
        raise ValueError("flash-attention tells users apart in the flat layout only; use layout auto or flat.")
    if flash and not (args.bf16 or args.fp16):
        raise ValueError("flash-attention computes in bf16 or fp16 only; use precision bf16.")
    if flex and any(module.attention_dropout for module in model.modules() if hasattr(module, "attention_dropout")):
        raise ValueError("flex-attention has no dropout on attention weights; set attention_dropout to 0.")
    if args.layout == "auto":
        return FLAT if flash or flex else ROWS
    return args.layout
