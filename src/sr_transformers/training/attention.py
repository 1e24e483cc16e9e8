"""Which attention a run trains with when nobody has chosen one: on a GPU a kernel of variable length, if it can do what
the model and the arguments ask for and computes what it should there; else transformers' own choice.
"""

import logging
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.utils import is_flash_attn_2_available

from sr_transformers.data.batches import ROWS
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.varlen_lsrm import TORCH_VARLEN, torch_varlen_attention
from sr_transformers.training.arguments import LSRMTrainingArguments

_LENGTHS = (3, 17, 1, 50)  # of the sequences that the kernel is tried on
_LOGGER = logging.getLogger(__name__)


def choose_attention(config: Any, arguments: LSRMTrainingArguments) -> str | None:
    """The name of the attention for a run of a model of this configuration, or None: let transformers choose.

    "flash_attention_2" where flash-attn is installed, else "torch_varlen". Both only on a GPU, in bf16 or fp16, for
    layout auto or flat, and for attention without biases; the latter without dropout of attention weights, and only if
    its kernel, tried on a few sequences, gives what plain attention gives, with the same gradients. If it does not, a
    warning says so.
    """
    if not torch.cuda.is_available() or arguments.use_cpu or not (arguments.bf16 or arguments.fp16):
        return None
    if config.model_type != LSRMConfig.model_type or arguments.layout == ROWS:
        return None
    if config.biases_attention or config.attention != "softmax":
        return None
    if is_flash_attn_2_available():
        return "flash_attention_2"
    if any(config.layer_dropout("attention_dropout")):
        return None
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16
    reason = fault_of_kernel(config.hidden_size // config.num_attention_heads, dtype, torch.device("cuda"))
    if reason is not None:
        _LOGGER.warning("attention %s is not used on this GPU: %s", TORCH_VARLEN, reason)
        return None
    return TORCH_VARLEN


def fault_of_kernel(head_size: int, dtype: torch.dtype, device: torch.device) -> str | None:
    """What is wrong with torch's variable-length kernel here: it raises, or differs from attention in float32, sequence
    by sequence, by more than its type rounds, forward or backward. None: nothing."""
    random = torch.Generator(device).manual_seed(0)
    shape, bounds = (4, 1, 2, sum(_LENGTHS), head_size), torch.tensor([0, *_LENGTHS], device=device).cumsum(0)
    query, key, value, upstream = torch.randn(shape, generator=random, device=device).to(dtype).unbind()
    rough, fine = (
        tuple(one.to(kind).requires_grad_() for one in (query, key, value)) for kind in (dtype, torch.float32)
    )
    lengths: Any = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 50, "max_length_k": 50}
    q, k, v = rough
    try:
        output, _ = torch_varlen_attention(nn.Module(), q, k, v, None, head_size**-0.5, **lengths)
        found = [output, *torch.autograd.grad(output, rough, upstream.transpose(1, 2))]
    except (RuntimeError, ValueError, NotImplementedError, ImportError) as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    parts = [one.split(_LENGTHS, dim=2) for one in fine]
    attend = partial(nn.functional.scaled_dot_product_attention, is_causal=True)
    expected = torch.cat([attend(*part) for part in zip(*parts, strict=True)], 2)
    exact = [expected.transpose(1, 2), *torch.autograd.grad(expected, fine, upstream.float())]
    for name, one, other in zip(("output", "query's", "key's", "value's"), found, exact, strict=True):
        one, other = one.detach().float(), other.detach()
        off = float((one - other).norm() / other.norm())
        if not off < 8 * torch.finfo(dtype).eps:  # NaN is no small error
            return f"{name}{'' if name == 'output' else ' gradient'} is off by {off:.1e} of its norm"
    return None
