"""The loss alone, forward and backward, from bf16 states and a float32 item table: ours, torch's own on whole logits,
and those of Liger and cut-cross-entropy where they are installed. All sum over the targets. Errors are against float64.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from gpu_parts.common import DEVICE, allocated_peak, clean, require, seconds_of
from sr_transformers.lsrm.loss_lsrm import full_softmax_loss

_CHUNK = 512


def losses(name: str) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """The function of states `(N, d)`, table `(V, d)` and targets `(N,)`."""
    if name == "ours":
        return full_softmax_loss
    if name == "torch":
        return lambda states, table, targets: functional.cross_entropy(
            (states @ table.to(states.dtype).t()).float(), targets, reduction="sum"
        )
    if name == "liger":
        require("liger_kernel")
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")
        return lambda states, table, targets: loss(table.to(states.dtype), states, targets)
    require("cut_cross_entropy")
    from cut_cross_entropy import linear_cross_entropy

    return lambda states, table, targets: linear_cross_entropy(states, table.to(states.dtype), targets, reduction="sum")


def exact(states: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the states in float64, some targets at a time."""
    wide, total, gradients = table.double(), 0.0, []
    for some, wanted in zip(states.double().split(_CHUNK), targets.split(_CHUNK), strict=True):
        logits = some @ wide.t()
        total += float(functional.cross_entropy(logits, wanted, reduction="sum"))
        gradients.append(logits.softmax(1) @ wide - wide[wanted])
    return total, torch.cat(gradients)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One implementation at one size."""
    loss = losses(case["implementation"])
    random = torch.Generator(DEVICE).manual_seed(0)
    count, width, items = case["targets"], case["width"], case["items"]
    states = torch.randn(count, width, generator=random, device=DEVICE).bfloat16().requires_grad_()
    table = (0.1 * torch.randn(items, width, generator=random, device=DEVICE)).requires_grad_()
    targets = torch.randint(items, (count,), generator=random, device=DEVICE)
    with torch.no_grad():
        expected, gradient = exact(states, table, targets)
    clean()

    def once() -> torch.Tensor:
        states.grad = table.grad = None
        found = loss(states, table, targets)
        found.backward()
        return found

    times = seconds_of(once, warm_up=2)
    found = once()
    return {
        "ms": 1000 * statistics.median(times),
        "targets_per_second": count / statistics.median(times),
        "peak_bytes": allocated_peak(),
        "loss_error": abs(float(found) - expected) / expected,
        "gradient_error": float((states.grad.double() - gradient).norm() / gradient.norm()),
    }
