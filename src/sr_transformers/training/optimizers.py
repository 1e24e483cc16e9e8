"""Optimizers that treat kinds of weights differently: Muon for the matrices of the blocks, and a learning rate of its
own for the item table. Both rearrange the groups that the Trainer has made.

Source: Muon is torch's own, with the learning rate and weight decay of Adam as in "Muon is Scalable for LLM Training",
arXiv 2502.16982, section 2.2.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

MUON = "muon"


class Together(torch.optim.Optimizer):
    """Several optimizers as one, each for its own weights.

    Groups and state are those of the single optimizers, so whoever schedules, saves or loads them needs nothing else.

    Args:
        optimizers: over different weights, before their first step; those that are several themselves are taken apart.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self.optimizers = [single for one in optimizers for single in _singles(one)]
        super().__init__([group for one in self.optimizers for group in one.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Makes groups and state of the single optimizers be those of this one."""
        groups = iter(self.param_groups)
        for one in self.optimizers:
            one.state = self.state
            one.param_groups = [next(groups) for _ in one.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """An update of all weights."""
        loss = closure() if closure is not None else None
        for one in self.optimizers:
            one.step()
        return loss


def _singles(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    return optimizer.optimizers if isinstance(optimizer, Together) else [optimizer]


def take(optimizer: torch.optim.Optimizer, weights: Sequence[nn.Parameter]) -> list[tuple[list[nn.Parameter], float]]:
    """Takes weights out of an optimizer, before its first step.

    Returns:
        They, in the groups that they were in, and the learning rate of each group.
    """
    own, taken = set(map(id, weights)), []
    for one in _singles(optimizer):
        for group in one.param_groups:
            found = [weight for weight in group["params"] if id(weight) in own]
            if found:
                taken.append((found, group["lr"]))
                group["params"] = [weight for weight in group["params"] if id(weight) not in own]
        one.param_groups = [group for group in one.param_groups if group["params"]]
    return taken


def matrices_of_blocks(model: nn.Module) -> list[nn.Parameter]:
    """The matrices in the `layers` of a model that are trained."""
    return [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2 and p.requires_grad]


def with_muon(optimizer: torch.optim.Optimizer, model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    """An optimizer that leaves the matrices of the blocks to Muon. Embeddings, head, biases, norms and whatever else
    the model has stay where they are.

    Args:
        optimizer: over all weights of the model, before its first step.
        rate, decay: learning rate and weight decay as for Adam.

    Raises:
        ValueError: for a model without matrices in `layers`.
    """
    matrices = matrices_of_blocks(model)
    if not matrices:
        raise ValueError(
            "optimizer muon is for the matrices of the blocks, and this model has none to train; set optimizer to null "
            "(--optimizer null), and Adam trains the rest."
        )
    take(optimizer, matrices)
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return Together([muon, optimizer])


def multiply_rate(
    optimizer: torch.optim.Optimizer, weights: Sequence[nn.Parameter], factor: float, keep_decay: bool = False
) -> None:
    """Gives some weights another learning rate, before the first step: they become groups of their own.

    Args:
        keep_decay: a step takes as much of them away as before (learning rate x weight decay).
    """
    own = set(map(id, weights))
    for group in list(optimizer.param_groups):
        found = [one for one in group["params"] if id(one) in own]
        if found:
            group["params"] = [one for one in group["params"] if id(one) not in own]
            decay = group["weight_decay"] / (factor if keep_decay else 1)
            optimizer.add_param_group({**group, "params": found, "lr": group["lr"] * factor, "weight_decay": decay})
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
