"""States, tables and targets, and what the loss of them is."""

import torch
from torch.nn import functional as F


def states(n=37, v=101, d=8, dtype=torch.float64, scale=1.0, seed=0):
    torch.manual_seed(seed)
    hidden = (torch.randn(n, d, dtype=torch.float64) * scale).to(dtype).requires_grad_()
    weight = (torch.randn(v, d, dtype=torch.float64) * scale).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, v, (n,))


def reference(hidden, weight, targets):
    """Plain float64 cross-entropy with its gradients."""
    h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    loss = F.cross_entropy(h @ w.t(), targets, reduction="sum")
    loss.backward()
    return loss.detach(), h.grad, w.grad
