"""The HF Trainer for sequential recommenders: packed batches, full-ranking validation, two optimizer phases, and
checkpoints that survive being killed at any moment."""

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel, PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput

from sr_transformers.data.batches import (
    FLAT,
    ROWS,
    EpochBatchSampler,
    EpochDataLoader,
    NegativeSampler,
    PackingCollator,
    WindowDataset,
)
from sr_transformers.data.examples import EvalDataset, TrainDataset
from sr_transformers.data.packing import LAST_POSITION
from sr_transformers.data.past_inputs import PastInputs
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.ties import ShuffledBaskets
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID, UNK_ID
from sr_transformers.hub.model_card import CardOptions
from sr_transformers.hub.publish import publish
from sr_transformers.hub.upload import make_repo
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.lsrm.varlen_lsrm import TORCH_VARLEN
from sr_transformers.records import RUN_FILE
from sr_transformers.training.arguments import LSRMTrainingArguments
from sr_transformers.training.binding import bind
from sr_transformers.training.checks import check_arguments
from sr_transformers.training.finish import finish, run_settings
from sr_transformers.training.phases import TrainingPhases
from sr_transformers.training.preflight import check_launch, check_length, check_validation
from sr_transformers.training.progress import TrainingLines, TrainingProgress
from sr_transformers.training.ranked import RankingTrainer
from sr_transformers.training.row_updates import DENSE


class LSRMTrainer(RankingTrainer):
    """transformers' Trainer, and on the data sets of a prepared log what a sequential recommender needs.

    With `data.train_dataset()` and `data.eval_dataset("validation")` it trains on packed rows, validates by full
    ranking, and changes from Adam to SGD; these need `LSRMTrainingArguments`. With data sets of another kind, and
    `TrainingArguments`, it is transformers' Trainer, except that the arguments it saves have no tokens and no absolute
    paths.

    Args: those of `transformers.Trainer`; on a prepared log
        model: an `LSRMForCausalLM`, or another head that takes `shift_labels`.
        data_collator: lays out the rows of windows; default: `PackingCollator`.
        train_dataset: `data.train_dataset()`; rows are cut and packed anew for every epoch, in the model's window.
        eval_dataset: `data.eval_dataset("validation")`.
        processing_class: default: the vocabulary of the log.
        compute_metrics: further metrics of every evaluation, from ranks and target tokens (see `RankingOutput`).
        compute_loss_func, preprocess_logits_for_metrics: refused, for there are no logits to give them.
        optimizers, optimizer_cls_and_kwargs: for the first phase; a finished optimizer needs `switch_optimizer=False`.

    Attributes:
        prepared: the log.
        sampler: which windows form which batch; None without a train_dataset.

    Raises:
        TypeError: if arguments of one kind meet data sets of the other.
        ValueError: if the model's items are not the log's, or if arguments and attention backend do not fit.
    """

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., PreTrainedModel] | None = None,
        compute_loss_func: Callable | None = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable | None = None,
    ):
        self.prepared = _log_behind(args, train_dataset, eval_dataset)
        if self.prepared is not None:
            check_launch()
            for name, given in (
                ("compute_loss_func", compute_loss_func),
                ("preprocess_logits_for_metrics", preprocess_logits_for_metrics),
            ):
                if given is not None:
                    raise ValueError(f"{name} wants logits, and on a prepared log none are kept; leave it out.")
            if optimizers != (None, None) and args.switch_optimizer:
                raise ValueError("an optimizer of your own is never switched; set switch_optimizer=False with it.")
            ours = args.optimizer is not None or args.table_lr_multiplier != 1 or args.table_updates != DENSE
            if optimizers[0] is not None and (ours or args.decay_epochs is not None):
                raise ValueError(
                    "an optimizer of your own is used as it is; leave optimizer, table_lr_multiplier, decay_epochs and "
                    "table_updates."
                )
            self.args = args  # for _adopt, which is asked before transformers sets it
            self.phases = TrainingPhases(
                args.metric_for_best_model, bool(args.greater_is_better), args.patience, args.switch_optimizer
            )
            self.prepared.verified()
            if model is not None:
                self._adopt(model)
            if args.num_negatives >= self.prepared.vocab_size - NUM_SPECIAL:
                raise ValueError(
                    f"num_negatives is {args.num_negatives}, but the log has {self.prepared.vocab_size - NUM_SPECIAL} "
                    "items: use 0, the full softmax, which is exact and costs less."
                )
            processing_class = processing_class or self.prepared.tokenizer
            callbacks = [self.phases, *(callbacks or [])]
        elif isinstance(model, LSRMForCausalLM) and args.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor: transformers does not shift the labels of this model where it smooths them, "
                "so it would learn to repeat the last item; leave it at 0."
            )
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        if self.prepared is None:
            return
        if args.n_gpu > 1:
            raise ValueError(
                f"one process sees {args.n_gpu} GPUs: start a process for each with `accelerate launch`, or choose one "
                "with CUDA_VISIBLE_DEVICES."
            )
        self._first_optimizer = optimizer_cls_and_kwargs
        self._own_collator = data_collator
        self._plan()
        # In a notebook transformers has a table of its own, which is neither of the two.
        bar, plain = self.pop_callback(ProgressCallback), self.pop_callback(PrinterCallback)
        if bar is not None and sys.stderr.isatty():
            self.add_callback(TrainingProgress())
        elif (bar or plain) is not None and self.sampler is not None:
            self.add_callback(TrainingLines(self.sampler.plan.num_targets / self.sampler.num_steps))

    def _adopt(self, model: PreTrainedModel) -> None:
        """Makes a model the model of the log, and notes what it was before it was trained."""
        data = self._log
        self.divided(model)
        bind(model, data, self.args.filter_seen)
        for name, fixed in (("pad_token_id", PAD_ID), ("unk_token_id", UNK_ID)):
            if getattr(model.config, name, None) not in (None, fixed):
                raise ValueError(
                    f"the model's {name} is {getattr(model.config, name)}, an item of the log, in which this token is "
                    f"{fixed}; leave {name} out."
                )
        self.settings = run_settings(model, self.args, data)
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def _plan(self) -> None:
        """Everything that follows from model and arguments; again for every trial of a search."""
        args, model, data = self.args, self.model, self._log
        self.phases.patience, self.phases.switch = args.patience, args.switch_optimizer
        self.window = model.config.max_position_embeddings
        self.sampler: EpochBatchSampler | None = None
        if self.train_dataset is None:
            return
        if self.train_dataset.window not in (None, self.window):
            raise ValueError(
                f"the train_dataset has a window of {self.train_dataset.window}, the model one of {self.window}; "
                "leave it out: data.train_dataset()."
            )
        width = self.window if args.row_width is None else args.row_width
        negatives = None
        if args.num_negatives:
            negatives = NegativeSampler(data.item_counts, args.num_negatives, args.negative_power, args.seed)
        layout = _layout(args, model)
        self._past_inputs = PastInputs(model.config) if getattr(model.config, "reads_past", False) else None
        self.data_collator = self._own_collator or PackingCollator(
            width, layout, args.objective == LAST_POSITION, negatives, self._past_inputs
        )
        seed = args.data_seed if args.data_seed is not None else args.seed
        self._shuffled = ShuffledBaskets(data, seed) if args.shuffle_baskets else None
        index, count = self.data_shard
        self.sampler = EpochBatchSampler(
            data.train_lengths,
            self.window,
            width,
            args.per_device_train_batch_size * args.gradient_accumulation_steps * count,
            seed,
            args.objective,
            args.gradient_accumulation_steps,
            count,
            index,
            data.shard_bounds,
            self._shuffled,
        )

    @property
    def _log(self) -> PreparedData:
        return cast(PreparedData, self.prepared)

    # Data

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process. Not handed to accelerate: the sampler knows ranks, and must not be cut again."""
        if self.prepared is None or self.sampler is None:
            return super().get_train_dataloader()  # which refuses to train without a train_dataset
        return EpochDataLoader(
            WindowDataset(self._shuffled or self.prepared, self.sampler.num_rows, self._past_inputs),
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains, after a look at all that would make it fail or go wrong at its end; see `KeepingTrainer.train`.

        Raises:
            ValueError: if there is nothing to validate on, or no time for it, though the arguments ask for validation.
        """
        if isinstance(self.eval_dataset, EvalDataset) and self.args.eval_strategy != "no":
            check_validation(self.eval_dataset.data, self.eval_dataset.split)
        if self.prepared is not None and self.sampler is not None:
            check_length(self.args, self.sampler.num_steps)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def call_model_init(self, trial: Any = None) -> Any:
        """A new model from `model_init`, bound to the log."""
        model: Any = super().call_model_init(trial)
        if self.prepared is not None:
            self._adopt(model)
        return model

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        if self.prepared is not None and self.hp_search_backend is not None and trial is not None:
            check_arguments(self.args)  # a space may hold values that the arguments would have refused
            self._plan()

    def hyperparameter_search(  # type: ignore[override]
        self,
        hp_space: Callable[[Any], dict[str, float]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """transformers' search, on a prepared log with other defaults.

        Args:
            hp_space: arguments to try. Default: the learning rate between 1e-4 and 1e-2 (Optuna).
            compute_objective: default: the best value so far of `args.metric_for_best_model`. (transformers' own would
                add up all metrics, whatever they mean.)
            n_trials: trainings.
            direction: default: as the metric has it, "minimize" for the loss and "maximize" for all others.
            args, kwargs: as transformers has them.

        Returns:
            `BestRun`: number, objective and arguments of the best trial.
        """
        if self.prepared is not None:
            hp_space = hp_space or _learning_rates
            compute_objective = compute_objective or self._objective
            direction = direction or ("maximize" if self.args.greater_is_better else "minimize")
        return super().hyperparameter_search(
            hp_space, compute_objective, n_trials, direction or "minimize", *args, **kwargs
        )

    def _objective(self, metrics: dict[str, float]) -> float:
        return metrics[self.phases.metric] if self.phases.best is None else self.phases.best

    # The Hub

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        options: CardOptions | None = None,
        **kwargs: Any,
    ) -> str | None:
        """Publishes the finished run in `args.output_dir` as `args.hub_model_id`: see `sr_transformers.publish`.

        A run that nobody has finished yet is finished first: its test targets are ranked and run.json is written.

        Args:
            commit_message, blocking: not used on a prepared log; the signature is transformers'.
            token, revision, private: default are those of the arguments (`hub_token`, `hub_revision`,
                `hub_private_repo`).
            options: of the model card.
            kwargs: of transformers' model card; refused on a prepared log.

        Returns:
            Address of the commit; None on all processes but the first.

        Raises:
            TypeError: for `kwargs`.
            ValueError: if `hub_model_id` is not set, or nothing has been trained.
            HubError: if the Hub refuses or cannot be reached.
        """
        if self.prepared is None:
            return super().push_to_hub(commit_message, blocking, token, revision, private, **kwargs)
        if kwargs:
            raise TypeError(f"on a prepared log the model card is written from run.json, without {', '.join(kwargs)}.")
        if self.args.hub_model_id is None:
            raise ValueError("hub_model_id is not set; give the arguments the name org/name.")
        folder = Path(str(self.args.output_dir))
        if not (folder / RUN_FILE).exists():
            if not any("train_runtime" in entry for entry in self.state.log_history):
                raise ValueError("nothing has been trained; call train() first.")
            finish(self, "custom", self.settings, self.started, self.phases.seconds)
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
        if self.prepared is None:
            return super().init_hf_repo(token, private)
        if self.args.hub_model_id is None:
            raise ValueError("push_to_hub needs hub_model_id; give the arguments the name org/name.")
        if self.is_world_process_zero():
            private = self.args.hub_private_repo if private is None else private
            make_repo(self.args.hub_model_id, bool(private), token or self.args.hub_token)


def _log_behind(args: Any, train_dataset: Any, eval_dataset: Any) -> PreparedData | None:
    """The prepared log of the data sets; None if they are of another kind."""
    given = [one for one in (train_dataset, eval_dataset) if one is not None]
    ours = [one for one in given if isinstance(one, TrainDataset | EvalDataset)]
    if isinstance(args, LSRMTrainingArguments) != bool(ours) or (ours and len(ours) < len(given)):
        raise TypeError(
            "LSRMTrainingArguments and the data sets of a prepared log go together: "
            "LSRMTrainer(model, LSRMTrainingArguments(...), train_dataset=data.train_dataset(), "
            'eval_dataset=data.eval_dataset("validation")). For data sets of another kind use transformers\' '
            "TrainingArguments."
        )
    if not ours:
        return None
    if train_dataset is not None and not isinstance(train_dataset, TrainDataset):
        raise TypeError("the train_dataset is one of held-out targets; train on data.train_dataset().")
    if len({one.data.items_fingerprint for one in ours}) > 1:
        raise ValueError("train_dataset and eval_dataset come from logs of different items; prepare them as one log.")
    return ours[0].data


def _learning_rates(trial: Any) -> dict[str, float]:
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)}


def _layout(args: LSRMTrainingArguments, model: PreTrainedModel) -> str:
    """Rows or flat, after a look at what the attention backend can do."""
    attention = model.config._attn_implementation or ""
    flash, flex = "flash" in attention, "flex" in attention
    varlen = flash or attention == TORCH_VARLEN  # kernels of variable length
    if varlen and args.layout == ROWS:
        raise ValueError(f"{attention} tells users apart in the flat layout only; use layout auto or flat.")
    if flash and not (args.bf16 or args.fp16):
        raise ValueError(f"{attention} computes in bf16 or fp16 only; use precision bf16.")
    if flex and any(module.attention_dropout for module in model.modules() if hasattr(module, "attention_dropout")):
        raise ValueError("flex-attention has no dropout on attention weights; set attention_dropout to 0.")
    if args.layout == "auto":
        return FLAT if varlen or flex else ROWS
    return args.layout
