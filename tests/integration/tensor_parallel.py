"""Started by test_processes on two processes: LSRMs sharded by their own plans compute what the whole ones do."""

import sys

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

import sr_transformers  # noqa: F401  (registers the model type)


def compare(folder: str) -> None:
    """Compares logits, loss and the gradient of the item table."""
    ids = torch.arange(2, 14).view(2, 6)
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    sharded = AutoModelForCausalLM.from_pretrained(
        folder, distributed_config=DistributedConfig(tp_size=2, tp_plan="auto")
    ).eval()
    one, two = whole(ids, labels=ids), sharded(ids, labels=ids)
    torch.testing.assert_close(two.logits, one.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two.loss, one.loss, rtol=1e-4, atol=1e-5)
    one.loss.backward()
    two.loss.backward()
    gradient = sharded.model.embed_tokens.weight.grad
    gradient = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    torch.testing.assert_close(gradient, whole.model.embed_tokens.weight.grad, rtol=1e-4, atol=1e-5)
    shard = sharded.model.layers[0].mlp.up_proj.weight
    assert shard.to_local().shape[0] * 2 == whole.model.layers[0].mlp.up_proj.weight.shape[0]
    attention = whole.model.layers[0].self_attn.q_proj.weight.shape[0]
    found = sharded.model.layers[0].self_attn.q_proj.weight
    found = found.to_local() if hasattr(found, "to_local") else found
    assert found.shape[0] == attention // (1 if whole.config.biases_attention else 2)
    print(f"rank {dist.get_rank()} agrees on {folder}")


if __name__ == "__main__":
    for one in sys.argv[1:]:
        compare(one)
    dist.destroy_process_group()
