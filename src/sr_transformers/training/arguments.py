"""Training arguments: transformers' own, and what sequential recommendation adds."""

import copy
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from sr_transformers.data.packing import ALL_POSITIONS
from sr_transformers.public import last_part
from sr_transformers.training.checks import check_arguments, check_schedule, point_schedule
from sr_transformers.training.row_updates import DENSE

SHARDED = "SHARDED_STATE_DICT"  # torch's name for checkpoints of which every process writes its part
EVALUATION_KS = (1, 5, 10, 50)  # cut-offs of validation
VALIDATION_METRICS = ("loss", "mrr", *(f"{name}@{k}" for name in ("hr", "ndcg", "coverage") for k in EVALUATION_KS))


@dataclass
class LSRMTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults and additions of this library.

    `per_device_train_batch_size` counts rows of `row_width` places, not users. The learning rate, schedule and betas of
    transformers belong to Adam; SGD has its own.

    Raises:
        ValueError: for an argument of transformers that this library does not honour, a value that is not one of those
            listed or outside its range (see `training.checks`), or a combination that cannot work.
    """

    objective: str = field(
        default=ALL_POSITIONS,
        metadata={
            "help": "all_positions: every position predicts its next item; last_position: one sample per prefix."
        },
    )
    row_width: int | None = field(
        default=None,
        metadata={"help": "Places in a training row, filled with windows of several users. None: the window."},
    )
    shuffle_baskets: bool = field(
        default=False,
        metadata={"help": "Read the interactions of a user at one moment in an order drawn anew for every epoch."},
    )
    layout: str = field(
        default="auto", metadata={"help": "rows, flat (variable-length kernels) or auto: flat with flash-attention."}
    )
    num_negatives: int = field(
        default=0,
        metadata={"help": "0: full softmax. Else: negatives per batch of the logQ-corrected sampled softmax."},
    )
    negative_power: float = field(
        default=0.75,
        metadata={"help": "Negatives are drawn from training counts to this power (0 uniform, 1 popularity)."},
    )
    optimizer: str | None = field(
        default=None,
        metadata={"help": "muon: for the matrices of the blocks, optim for all else. None: optim for everything."},
    )
    table_lr_multiplier: float = field(
        default=1.0, metadata={"help": "The item table learns so many times faster than the other weights."}
    )
    decay_epochs: float | None = field(
        default=None,
        metadata={
            "help": "Weight decay as a time: after so many epochs at the peak learning rate a weight that no gradient "
            "holds would be 1/e of itself. Fits any rate, batch and amount of data. None: weight_decay."
        },
    )
    table_updates: str = field(
        default=DENSE,
        metadata={
            "help": "How the item table learns: dense, as all else; or, with sampled softmax, only the rows of a step: "
            "lazy_adam (moments of a row rest while it does) or row_adagrad (one number of state per row)."
        },
    )
    switch_optimizer: bool = field(
        default=True,
        metadata={"help": "Train with Adam until validation stops improving, then with SGD until it stops again."},
    )
    sgd_learning_rate: float = field(default=0.1, metadata={"help": "Constant learning rate of the SGD phase."})
    sgd_momentum: float = field(default=0.9, metadata={"help": "Momentum of the SGD phase."})
    patience: int = field(default=3, metadata={"help": "Evaluations without improvement that end a phase."})
    filter_seen: bool | None = field(
        default=None, metadata={"help": "Take seen items out of validation rankings. None: unless the log has repeats."}
    )
    precision: str = field(
        default="auto", metadata={"help": "bf16, fp32, or auto: bf16 where the hardware multiplies it faster."}
    )

    tp_size: int = field(
        default=1,
        metadata={
            "help": "Processes that have the item table together, each some of its rows, and read the same batch; the "
            "others stand beside them as copies (tensor parallelism of the table alone)."
        },
    )
    fsdp: bool | None = field(  # type: ignore[assignment]  # transformers takes texts too
        default=None,
        metadata={"help": "Divide weights, gradients and optimizer state among the processes (FSDP2)."},
    )

    # transformers' own, with our defaults
    eval_strategy: str = field(default="epoch", metadata={"help": "When to validate: no, steps or epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: as eval_strategy, or best, or no."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept beside the best one."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the weights that validated best."})
    metric_for_best_model: str = field(default="loss", metadata={"help": "Validation metric that decides."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Rows per device and micro-batch."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of the Adam phase."})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "Schedule of the Adam phase."})
    warmup_steps: float = field(default=100, metadata={"help": "Steps (or, below 1, fraction) of linear warm-up."})
    optim: str = field(default="adamw_torch_fused", metadata={"help": "Optimizer of the first phase."})
    num_train_epochs: float = field(default=30, metadata={"help": "Most epochs over both phases."})
    report_to: str | list[str] = field(default="none", metadata={"help": "Trackers to log to."})
    disable_tqdm: bool | None = field(default=None, metadata={"help": "Turn progress bars off."})
    hub_strategy: str = field(default="end", metadata={"help": "What push_to_hub sends: end, the finished run."})

    def __post_init__(self):
        check_arguments(self)
        if self.precision == "fp32" and self.bf16:
            raise ValueError("precision fp32 contradicts bf16; give one of the two.")
        if self.fp16 and not torch.accelerator.is_available():
            raise ValueError("fp16 needs a GPU; use precision bf16 or fp32.")
        if self.decay_epochs is not None and self.weight_decay:
            raise ValueError("decay_epochs sets weight_decay; give one of the two, and leave the other at 0 or null.")
        if self.push_to_hub and self.hub_model_id is None:
            raise ValueError("push_to_hub needs hub_model_id: the name ORG/NAME of the repository.")
        metric = str(self.metric_for_best_model).removeprefix("eval_")
        if metric not in VALIDATION_METRICS:
            raise ValueError(
                f"metric_for_best_model is {self.metric_for_best_model!r}; validation measures "
                f"{', '.join(VALIDATION_METRICS)}."
            )
        if self.greater_is_better not in (None, metric != "loss"):
            raise ValueError(
                f"greater_is_better is {self.greater_is_better}, but {metric} is better the "
                f"{'smaller' if metric == 'loss' else 'greater'} it is; leave it out."
            )
        # Without this transformers neither takes bf16 on a CPU nor sees the other processes of a CPU launch.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if chosen_precision(self.precision) == "bf16":
            self.bf16 = True
        super().__post_init__()
        point_schedule(self)
        check_schedule(self)
        config: Any = self.fsdp_config
        if self.fsdp and "state_dict_type" not in config:  # transformers' default is one file for all
            config["state_dict_type"] = self.fsdp_plugin_args["state_dict_type"] = SHARDED


def without_traces(arguments: LSRMTrainingArguments) -> LSRMTrainingArguments:
    """A copy for the disk, without tokens; paths of this machine are their last part."""
    kept = copy.copy(arguments)
    for name, value in vars(arguments).items():
        if name.endswith("_token"):
            setattr(kept, name, None)
        elif isinstance(value, str) and os.path.isabs(value):
            setattr(kept, name, last_part(value))
    return kept


def chosen_precision(precision: str) -> str:
    """bf16 or fp32, also where a recipe leaves it to the machine (`auto`)."""
    return ("bf16" if bf16_is_fast() else "fp32") if precision == "auto" else precision


def bf16_is_fast() -> bool:
    """Whether this machine multiplies bf16 faster than float32: Ampere GPUs and later, CPUs with AMX or AVX512-BF16."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
