"""Updates of the rows of the item table that a step has touched, and of no others.

With sampled softmax a step reads the rows of its inputs, targets and negatives: thousands of millions. The gradient of
the table is then a sparse tensor of these rows (`nn.Embedding` with `sparse`, and the same for the head), processes
exchange rows, the norm that clips is taken over them, and an optimizer moves them alone. No part of a step passes over
the table.

What it refuses: whatever would read or move all rows (`row_problems`, `check_model`), and a dense gradient.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed, nn

from sr_transformers.lsrm.scoring_lsrm import reads_weight
from sr_transformers.training.optimizers import Together, take

DENSE, LAZY_ADAM, ROW_ADAGRAD = "dense", "lazy_adam", "row_adagrad"
TABLE_UPDATES = (DENSE, LAZY_ADAM, ROW_ADAGRAD)


class RowAdagrad(torch.optim.Optimizer):
    """Adagrad with one number of state per row: the sum of the mean squares of its gradients.

        s_r += mean(g_r^2);  w_r -= rate * g_r / (sqrt(s_r) + eps)        r: the rows of the gradient

    Args:
        params: matrices whose gradients are sparse in rows.
        lr: learning rate; a row's first step has a root mean square of this.
        eps: keeps a row with a gradient of zero where it is.

    Raises:
        ValueError: on `step`, for a dense gradient.

    Source: row-wise Adagrad as in Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
    Learning Recommendation Models", arXiv 2104.05158, section 4.1.4.
    """

    def __init__(self, params: Any, lr: float = 1e-2, eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """An update of the rows that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                rows, values = rows_of(table.grad)
                state = self.state[table]
                if not state:
                    state["sum"] = torch.zeros(len(table), dtype=table.dtype, device=table.device)
                state["sum"].index_add_(0, rows, values.square().mean(1))
                size = state["sum"][rows].sqrt_().add_(group["eps"])
                table.index_add_(0, rows, values / size[:, None], alpha=-float(group["lr"]))
        return loss


def rows_of(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`(R,)` int64 rows of a sparse gradient, each once, and its `(R, d)` values.

    Raises:
        ValueError: for a dense gradient.
    """
    if not gradient.is_sparse:
        raise ValueError(
            "the item table got a gradient for all of its rows, so something in the model reads all of them in a step; "
            "with such a model leave table_updates dense."
        )
    gradient = gradient.coalesce()
    return gradient.indices()[0], gradient.values()


def row_problems(arguments: Any) -> list[str]:
    """What `table_updates` other than dense needs and the arguments have otherwise, each with its reason."""
    if arguments.table_updates == DENSE:
        return []
    momentum = arguments.switch_optimizer and arguments.sgd_momentum > 0
    wrong = (
        (arguments.num_negatives == 0, "num_negatives above 0 (the full softmax reads every row)"),
        (arguments.weight_decay > 0, "weight_decay 0 (it moves every row in every step)"),
        (arguments.decay_epochs is not None, "decay_epochs null (it moves every row in every step)"),
        (momentum, "switch_optimizer false, or sgd_momentum 0 (momentum moves every row in every step)"),
        (arguments.torch_compile, "torch_compile false (compiled code has no sparse gradients)"),
        (bool(arguments.fsdp or arguments.deepspeed), "neither fsdp nor deepspeed (the table must lie in one piece)"),
    )
    return [words for found, words in wrong if found]


def tables_of(model: nn.Module) -> list[nn.Parameter]:
    """The item table, and that of the head if it has one of its own; those that are trained."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    found = [inputs.weight] if inputs.weight is head.weight else [inputs.weight, head.weight]
    return [one for one in found if one.requires_grad]


def make_sparse(model: Any, sparse: bool) -> None:
    """Makes gradients of the item table sparse in rows, or dense again; before the model is wrapped for processes.

    Raises:
        ValueError: for a model whose head is more than a product with its weight: calling it reads every row.
    """
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if sparse and not (type(inputs) is nn.Embedding and reads_weight(head)):
        raise ValueError(
            "table_updates other than dense needs the model's own table and head: with adapters, hooks or quantized "
            "weights every row is read."
        )
    if sparse and not tables_of(model):
        raise ValueError("table_updates is for the item table, and this model's is not trained; leave it dense.")
    inputs.sparse = head.sparse = sparse
    # The processes of DDP exchange rows (`share_rows`), for NCCL adds no sparse tensors.
    tables = {id(one) for one in tables_of(model)}
    names = [name for name, one in model.named_parameters(remove_duplicate=False) if id(one) in tables]
    model._ddp_params_and_buffers_to_ignore = names if sparse else []


def with_row_updates(
    optimizer: torch.optim.Optimizer, tables: Sequence[nn.Parameter], arguments: Any
) -> torch.optim.Optimizer:
    """An optimizer that leaves the tables to one of rows, at the learning rates that they have in it.

    Args:
        optimizer: over all weights, before its first step.
        arguments: `table_updates`, and the betas and epsilon of Adam.
    """
    groups = take(optimizer, tables)
    settings: dict[str, Any] = {"eps": arguments.adam_epsilon}
    if arguments.table_updates == LAZY_ADAM:
        settings["betas"] = (arguments.adam_beta1, arguments.adam_beta2)
    rows = torch.optim.SparseAdam if arguments.table_updates == LAZY_ADAM else RowAdagrad
    return Together([rows([{"params": found, "lr": rate} for found, rate in groups], **settings), optimizer])


@torch.no_grad()
def share_rows(tables: Sequence[nn.Parameter]) -> None:
    """Gives every process the mean over processes of the tables' gradients; all get the same bits."""
    world = distributed.get_world_size()
    for table in tables:
        rows, values = (one.contiguous() for one in _gradient(table))
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(world)]
        distributed.all_gather(counts, count)
        sizes = [int(one) for one in counts]
        most = max(sizes)
        rows = nn.functional.pad(rows, (0, most - len(rows)))
        values = nn.functional.pad(values, (0, 0, 0, most - len(values)))
        all_rows, all_values = ([torch.empty_like(one) for _ in range(world)] for one in (rows, values))
        distributed.all_gather(all_rows, rows)
        distributed.all_gather(all_values, values)
        joint = torch.cat([one[:size] for one, size in zip(all_rows, sizes, strict=True)])
        means = torch.cat([one[:size] for one, size in zip(all_values, sizes, strict=True)]) / world
        table.grad = torch.sparse_coo_tensor(joint[None], means, table.shape, check_invariants=False).coalesce()


def _gradient(table: nn.Parameter) -> tuple[torch.Tensor, torch.Tensor]:
    if table.grad is None:  # a process whose batch is empty
        return torch.zeros(0, dtype=torch.int64, device=table.device), table.new_zeros(0, table.shape[1])
    return rows_of(table.grad)


@torch.no_grad()
def clip_with_rows(parameters: Sequence[nn.Parameter], most: float) -> torch.Tensor:
    """As `torch.nn.utils.clip_grad_norm_`, which takes no sparse gradients.

    Returns:
        The norm before clipping.
    """
    gradients = []
    for one in parameters:
        if one.grad is not None and one.grad.is_sparse:
            one.grad = one.grad.coalesce()
            gradients.append(one.grad.values())
        elif one.grad is not None:
            gradients.append(one.grad)
    norm = nn.utils.get_total_norm(gradients)
    if most < float("inf"):
        factor = (most / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.to(gradient.device))
    return norm
