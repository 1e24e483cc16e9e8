"""A small model that reads the past, with something in every table."""

import torch

from sr_transformers.lsrm.configuration_lsrm import HISTORY_PARTS, LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM

V, UNIT = 30, 3.0


def make(parts=HISTORY_PARTS, **more) -> LSRMForCausalLM:
    """A model whose tables and counts are filled."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8, **more}
    model = LSRMForCausalLM(LSRMConfig(vocab_size=V, history=list(parts), time_unit=UNIT, **sizes)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    return model
