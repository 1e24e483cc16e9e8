"""Low-rank adapters in a model that is being trained, merged when it is done.

A checkpoint of such a run holds, beside what training needs to go on (frozen matrices and adapters), the merged
matrices under the model's own names: so it loads like any other, also with `AutoModelForCausalLM`.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback


class _MergeAtTheEnd(TrainerCallback):
    """Merges adapters once the best weights are back in place, before the model is ranked on test and saved."""

    def __init__(self, adapted: Any):
        self.adapted = adapted

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.adapted.merge_and_unload()


def adapt(model: PreTrainedModel, rank: int) -> TrainerCallback:
    """Freezes a model and puts low-rank adapters into the matrices of its body, in place.

    Returns:
        What merges them at the end of training.

    Raises:
        ValueError: without the package peft.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError("lora_rank needs the package peft: pip install 'sr-transformers[lora]'.") from error
    # alpha = 2 r: adapters act with the weight 2, a common default; B starts at zero, so training starts from `model`.
    matrices = [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and ".layers." in f".{name}"]
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=matrices, lora_dropout=0.0)
    adapted = peft.get_peft_model(model, config)
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.register_state_dict_post_hook(_add_merged)
            module.register_load_state_dict_pre_hook(_remove_merged)
    return _MergeAtTheEnd(adapted)


@torch.no_grad()
def _add_merged(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    base = module.get_base_layer()
    state[f"{prefix}weight"] = base.weight + sum(map(module.get_delta_weight, module.active_adapters))
    state[f"{prefix}bias"] = base.bias.detach().clone()  # a copy: safetensors refuses two names for one memory


def _remove_merged(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in ("weight", "bias"):
        state.pop(f"{prefix}{name}", None)
