"""Models whose item table is divided by rows over processes (vocabulary parallelism), on a mesh of two dimensions.

    mesh = init_device_mesh("cpu", (dp, tp), mesh_dim_names=("dp", "tp"))

Processes along "tp" have one table together and the same batch (`lsrm.divided_lsrm`); along "dp" stand copies with
batches of their own. Nothing but the tables with a row for each item is divided: the blocks are small beside them.
`training.dividing` is the Trainer for it.

What it refuses: numbers of processes that do not fit, and folders whose weights are not all there or do not fit.
"""

import functools
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.divided_lsrm import MESH, division, refuse_undivided
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.training.first_rows import FirstRows
from sr_transformers.training.row_updates import DENSE

# What they do to a row depends on no other row, and was seen to be right for rows that are divided.
OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "sgd", "adagrad")


def tp_problems(arguments: Any) -> list[str]:
    """What `tp_size` above 1 needs and the arguments have otherwise, each with its reason."""
    if arguments.tp_size == 1:
        return []
    optimizer = str(getattr(arguments.optim, "value", arguments.optim))
    ddp = [name for name in vars(arguments) if name.startswith("ddp_") and name not in ("ddp_backend", "ddp_timeout")]
    unread = [name for name in sorted(ddp) if getattr(arguments, name) is not None]
    wrong: tuple[tuple[Any, str], ...] = (
        (arguments.fsdp, "fsdp left out (it divides the table too, and gathers all of it in every step)"),
        (arguments.deepspeed, "deepspeed left out (it keeps weights in buffers of its own)"),
        (arguments.torch_compile, "torch_compile false (a graph breaks wherever processes exchange numbers)"),
        (arguments.fp16, "precision bf16 or fp32 (fp16 scales its loss in each process for itself)"),
        (arguments.table_updates != DENSE, "table_updates dense (others move rows of whole tables)"),
        (optimizer not in OPTIMIZERS, f"an optim of {', '.join(OPTIMIZERS)} (others were never tried on divided rows)"),
        (unread, f"{', '.join(unread)} left out (it is for copies made by DDP)"),
    )  # fmt: skip
    return [words for found, words in wrong if found]


def mesh_of(arguments: Any) -> DeviceMesh | None:
    """The mesh of all processes that training arguments ask for with `tp_size`; None for 1, tables that stay whole.

    Raises:
        ValueError: if the processes are not some groups of that size.
    """
    parts, world = arguments.tp_size, arguments.world_size
    if parts == 1:
        return None
    if world % parts:
        found = "there is one process only" if world == 1 else f"there are {world} processes"
        raise ValueError(
            f"tp_size {parts} divides the item table over groups of {parts} processes, and {found}: start a multiple "
            f"of {parts}, for example: torchrun --nproc_per_node {parts} ..."
        )
    return _mesh(arguments.device.type, world // parts, parts)


@functools.cache  # every mesh has communicators of its own
def _mesh(device: str, copies: int, parts: int) -> DeviceMesh:
    return init_device_mesh(device, (copies, parts), mesh_dim_names=("dp", MESH))


def _tables(config: LSRMConfig) -> dict[str, str]:
    """Names of the modules with a row for each item, and how transformers calls the way to divide them."""
    styles = {"model.embed_tokens": "embedding_rowwise"}
    if not config.tie_word_embeddings:
        styles["lm_head"] = "colwise_gather_output"
    if "items" in config.history:
        styles["history.item_table"] = "embedding_rowwise"
    return styles


def divide(model: LSRMForCausalLM, mesh: DeviceMesh) -> LSRMForCausalLM:
    """Leaves each process of the mesh's "tp" its rows of the tables with a row for each item: the item table, a head of
    its own, and what `history` learns for each item. Changes the model and returns it.

    Raises:
        ValueError: as `divided_lsrm.refuse_undivided`.
    """
    plan = _tables(model.config)
    apply_tensor_parallelism(
        model, mesh[MESH], {name + end: style for name, style in plan.items() for end in (".weight", "")}
    )
    for name in plan:
        _let_go_of_others(model.get_submodule(name))
    model.tie_weights()
    refuse_undivided(model.config.history, model.lm_head)
    return model


def _let_go_of_others(module: nn.Module) -> None:
    """A part that was cut from a whole table keeps the whole alive: copies the part."""
    weight: Any = module.weight
    local = weight.to_local().detach()
    if local.device.type != "meta" and local.untyped_storage().nbytes() > local.numel() * local.element_size():
        module.weight = nn.Parameter(_like(weight, local.clone()), weight.requires_grad)


def _like(weight: DTensor, local: torch.Tensor) -> DTensor:
    """A weight divided as another, of these rows."""
    return DTensor.from_local(
        local, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
    )


def _empty(config: LSRMConfig, mesh: DeviceMesh) -> LSRMForCausalLM:
    """A divided model whose weights are whatever was in memory; no process ever has a whole table."""
    with torch.device("meta"):
        model = LSRMForCausalLM(config)
    divide(model, mesh)
    device = torch.device(mesh.device_type)
    for module in model.modules():
        for name, weight in module._parameters.items():
            if isinstance(weight, DTensor):
                local = torch.empty(weight.to_local().shape, dtype=weight.dtype, device=device)
                module._parameters[name] = nn.Parameter(_like(weight, local))
            elif weight is not None:
                module._parameters[name] = nn.Parameter(torch.empty_like(weight, device=device))
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else torch.empty_like(buffer, device=device)
    model.tie_weights()
    return model


@torch.no_grad()
def new_divided(config: LSRMConfig, mesh: DeviceMesh, seed: int = 0, **options: Any) -> LSRMForCausalLM:
    """A model with first weights, divided from the beginning.

    The weights are those that `LSRMForCausalLM._from_config(config)` has after `torch.manual_seed(seed)`, on any number
    of processes.

    Args:
        options: of `_from_config`, such as attn_implementation.

    Raises:
        ValueError: as `divide`.
    """
    with torch.device("meta"):
        outline: Any = LSRMForCausalLM(config)
    names = _tables(config)
    shapes = {tuple(outline.get_submodule(name).weight.shape) for name in names}
    others = {tuple(one.shape) for name, one in outline.named_parameters() if name.removesuffix(".weight") not in names}
    # A table as small as a matrix of the blocks is made whole, and cut.
    first = FirstRows(shapes - others, mesh[MESH])
    with torch.random.fork_rng(devices=[]), first:
        torch.manual_seed(seed)
        model: Any = LSRMForCausalLM._from_config(config, **options)
    kept = {name: first.rows(model.get_submodule(name).weight) for name in names}
    divide(model, mesh)
    device = torch.device(mesh.device_type)
    for name, rows in kept.items():
        module = model.get_submodule(name)
        if rows is not None:
            _set_rows(module, rows.to(device))
    model.tie_weights()
    for one in [*model.parameters(), *model.buffers()]:
        if not isinstance(one, DTensor):
            one.data = one.data.to(device)
    return model


def _set_rows(module: nn.Module, rows: torch.Tensor) -> None:
    """Gives a divided table its rows of this process; the row of padding is zero."""
    weight: Any = module.weight
    part, padding = division(weight), getattr(module, "padding_idx", None)
    assert part is not None
    if padding is not None and part.first <= padding < part.last:
        rows[padding - part.first] = 0.0
    module.weight = nn.Parameter(_like(weight, rows))


@torch.no_grad()
def load_divided(folder: str | Path, mesh: DeviceMesh) -> LSRMForCausalLM:
    """A saved model, divided: each process reads its rows alone. The folder may have been saved by any number of
    processes; for a mesh without "dp" transformers' own `from_pretrained(distributed_config=...)` does too.

    Raises:
        OSError: if there is no such folder, or no configuration in it.
        ValueError: for weights that are missing, left over or of another shape, and as `divide`.
    """
    folder = Path(folder)
    config = LSRMConfig.from_pretrained(folder)
    model = _empty(config, mesh)
    index = folder / "model.safetensors.index.json"
    whole = folder / "model.safetensors"
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if not whole.exists() else [whole.name]
    wanted: dict[str, Any] = dict(model.state_dict())
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight")
    for file in files:
        with safe_open(folder / file, "pt") as content:
            for name in content.keys():  # noqa: SIM118  (it is no dictionary)
                weight, stored = wanted.pop(name, None), content.get_slice(name)
                if weight is None or list(weight.shape) != stored.get_shape():
                    raise ValueError(
                        f"{folder / file} has {name} {stored.get_shape()}, which is no weight of this model."
                    )
                part = division(weight)
                if part is None:
                    weight.copy_(content.get_tensor(name))
                else:
                    weight.to_local().copy_(stored[part.first : part.last])
    if wanted:
        raise ValueError(
            f"{folder} lacks the weights {', '.join(sorted(wanted))}: copy it again, or save the model anew."
        )
    return model


@torch.no_grad()
def begin_alike(parameters: Iterable[nn.Parameter], mesh: DeviceMesh) -> None:
    """Gives all copies of a model the weights of the first, and all processes of a copy the same where nothing is
    divided.

    Args:
        mesh: of both dimensions.
    """
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            dist.broadcast(parameter.to_local(), group=mesh["dp"].get_group(), group_src=0)
        else:
            dist.broadcast(parameter.data, 0)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], mesh: DeviceMesh) -> None:
    """Gives all copies of a model the mean of their gradients, once per step, after the last micro-batch.

    A weight that has a gradient in some copies only counts as zero in the others; one that has none in any is left.

    Args:
        mesh: the dimension of copies, `mesh["dp"]`.
    """
    if mesh.size() == 1:
        return
    group, trained = mesh.get_group(), [one for one in parameters if one.requires_grad]
    used = torch.tensor([one.grad is not None for one in trained], dtype=torch.int32, device=mesh.device_type)
    dist.all_reduce(used, dist.ReduceOp.MAX, group)
    for parameter, counts in zip(trained, used.tolist(), strict=True):
        if counts:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            local = grad.to_local() if isinstance(grad, DTensor) else grad
            dist.all_reduce(local, group=group)
            local.div_(mesh.size())
            parameter.grad = grad


def by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters that are whole here and those of each mesh apart: fused optimizers and norms take no mixture."""
    found = defaultdict(list)
    for parameter in parameters:
        found[parameter.device_mesh if isinstance(parameter, DTensor) else None].append(parameter)
    return list(found.values())


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> torch.Tensor:
    """As `torch.nn.utils.clip_grad_norm_`, over divided and whole parameters together; returns the norm before."""
    groups = by_mesh(parameter for parameter in parameters if parameter.grad is not None)
    grads = [[parameter.grad for parameter in group if parameter.grad is not None] for group in groups]
    norms = [nn.utils.get_total_norm(group) for group in grads]
    total = torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return total


__all__ = ["average_gradients", "begin_alike", "by_mesh", "clip_gradients", "divide", "load_divided", "mesh_of",
           "new_divided", "tp_problems"]  # fmt: skip
