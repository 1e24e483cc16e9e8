"""Users packed into rows, under an attention and a precision, against the loop over users in float64: the loss, the
logits and all gradients. Beside it what the same loop is off by in that precision with plain attention: rounding alone.
"""

from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from gpu_parts.common import DEVICE, config_of, is_flat, lay_out, make_model

LENGTHS = [7, 50, 1, 3, 22, 5, 41, 13, 2, 9, 30, 17]


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Errors relative to the norm of what is right, and whether they are at most twice those of rounding."""
    attention, precision = case["attention"], case["precision"]
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise RuntimeError("flash_attn is not installed")
    width = 2 * case["head_size"]
    shape = {"hidden_size": width, "num_hidden_layers": 4, "num_attention_heads": 2, "initializer_range": 0.1}
    config = config_of("tiny", 500, **shape, embedding_dropout=0.0, residual_dropout=0.0)
    packed = lay_out(LENGTHS, "flat" if is_flat(attention) else "rows", config.vocab_size)
    alone = [_alone(one, packed) for one in _places(packed)]
    exact = _run(config, "sdpa", "fp64", alone)
    rounded = _run(config, "sdpa", precision, alone)
    found = _run(config, attention, precision, [packed])
    found["logits"] = torch.cat([found["logits"][0, row, first:last] for row, first, last in _places(packed)])
    result: dict[str, Any] = {}
    for name in ("loss", "logits", "gradient"):
        result[f"{name}_error"] = _error(found[name], exact[name])
        result[f"{name}_error_one_by_one"] = _error(rounded[name], exact[name])
    holds = all(
        result[f"{name}_error"] <= 2 * result[f"{name}_error_one_by_one"] + 1e-12 for name in ("logits", "gradient")
    )
    return {**result, "holds": holds}


def _places(packed: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(row, first place, place after the last) of every user."""
    found = []
    for row, positions in enumerate(packed["position_ids"]):
        filled = int((packed["shift_labels"][row] != -100).sum())
        starts = [place for place in range(filled) if positions[place] == 0]
        found += [(row, first, last) for first, last in zip(starts, [*starts[1:], filled], strict=True)]
    return found


def _alone(place: tuple[int, int, int], packed: dict[str, Any]) -> dict[str, Any]:
    row, first, last = place
    return {name: packed[name][row : row + 1, first:last] for name in ("input_ids", "shift_labels")}


def _run(config: Any, attention: str, precision: str, batches: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Summed loss, logits of all batches and all gradients in one vector, float64."""
    model = make_model(config, attention).train()
    model = model.double() if precision == "fp64" else model
    total: Any = 0.0
    logits = []
    for batch in batches:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16"):
            output = model(**batch, num_items_in_batch=1, use_cache=False, skip_logits=False)
        total = total + output.loss
        logits.append(output.logits.detach().double())
    total.backward()
    gradient = torch.cat([parameter.grad.double().flatten() for parameter in model.parameters()])
    shown = logits[0][None] if len(batches) == 1 else torch.cat([one[0] for one in logits])
    return {"loss": total.detach().double(), "logits": shown, "gradient": gradient}


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    items = slice(2, None)  # of what is no item the logits are the lowest number
    if found.ndim == 2:
        found, exact = found[:, items], exact[:, items]
    return float((found - exact).norm() / exact.norm())
