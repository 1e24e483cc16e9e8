"""Training with the item table divided by rows over processes (vocabulary parallelism), on a mesh of two dimensions.

    mesh = init_device_mesh("cpu", (dp, tp), mesh_dim_names=("dp", "tp"))

Processes along "tp" have one table together and the same batch (`lsrm.divided_lsrm`); along "dp" stand copies with
batches of their own. Nothing but the tables with a row for each item is divided: the blocks are small beside them.

What it refuses: folders whose weights are not all there or do not fit, and adapters.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.divided_lsrm import MESH, division, refuse_undivided
from sr_transformers.lsrm.history_lsrm import ZeroEmbedding
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM

_BLOCK = 1 << 16  # rows of a new table that one seed draws


def divide(model: LSRMForCausalLM, mesh: DeviceMesh) -> LSRMForCausalLM:
    """Leaves each process of the mesh's "tp" its rows of the tables with a row for each item: the item table, a head of
    its own, and what `history` learns for each item. Changes the model and returns it.

    Raises:
        ValueError: as `divided_lsrm.refuse_undivided`.
    """
    plan = {"model.embed_tokens": "embedding_rowwise"}
    if not model.config.tie_word_embeddings:
        plan["lm_head"] = "colwise_gather_output"
    if "items" in model.config.history:
        plan["history.item_table"] = "embedding_rowwise"
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
def new_divided(config: LSRMConfig, mesh: DeviceMesh, seed: int = 0) -> LSRMForCausalLM:
    """A model with first weights, divided from the beginning.

    The weights do not depend on how many processes there are. Their distribution is that of a model made whole, their
    values are not.

    Raises:
        ValueError: as `divide`.
    """
    model = _empty(config, mesh)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        divided = set()
        for module in model.modules():
            weight: Any = getattr(module, "weight", None)
            if division(weight) is None:
                model._init_weights(module)
            elif weight not in divided:
                divided.add(weight)
                _first_rows(module, config, seed)
    return model


def _first_rows(module: nn.Module, config: LSRMConfig, seed: int) -> None:
    """Rows as `LSRMPreTrainedModel` begins them: each block of the whole table from a seed of its own."""
    weight: Any = module.weight
    part, rows = division(weight), weight.to_local()
    assert part is not None
    rows.zero_()
    if isinstance(module, ZeroEmbedding):
        return
    for block in range(part.first // _BLOCK, -(-part.last // _BLOCK)):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + block)
        first = block * _BLOCK
        drawn = torch.empty(min(_BLOCK, len(weight) - first), weight.shape[1])
        drawn.normal_(0.0, config.initializer_range, generator=generator)
        begin, end = max(first, part.first), min(first + len(drawn), part.last)
        rows[begin - part.first : end - part.first] = drawn[begin - first : end - first]
    padding = getattr(module, "padding_idx", None)
    if padding is not None and part.first <= padding < part.last:
        rows[padding - part.first] = 0.0


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
def add_gradients(parameters: Iterable[nn.Parameter], mesh: DeviceMesh) -> None:
    """Sums gradients over the copies of a model, after the last micro-batch of a step: with losses divided by the
    targets of all copies (`num_items_in_batch`) they are then those of the whole batch.

    Args:
        mesh: the dimension of copies, `mesh["dp"]`.
    """
    for parameter in parameters:
        grad = parameter.grad
        if grad is not None:
            dist.all_reduce(grad.to_local() if isinstance(grad, DTensor) else grad, group=mesh.get_group())


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


__all__ = ["add_gradients", "by_mesh", "clip_gradients", "divide", "load_divided", "new_divided"]
