"""The 829-million-parameter architecture of the paper: created, saved in shards, reloaded, trained for one step.

Needs about 20 GiB of memory, 7 GB of disk and some minutes, so it runs only when asked: SR_LARGE=1 pytest -m large.
"""

import math
import os
import resource

import pytest
import torch
from transformers import AutoModelForCausalLM

from sr_transformers import LSRMConfig, LSRMForCausalLM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.large,
    pytest.mark.skipif(os.environ.get("SR_LARGE") != "1", reason="20 GiB of memory; set SR_LARGE=1 to run it"),
]
LIMIT = 20 * 2**30  # bytes
# ML-20M's items and the two special tokens.
VOCAB_SIZE = 26_429


def test_800m_sharded_reloaded_and_one_step(tmp_path):
    torch.manual_seed(0)
    config = LSRMConfig.from_size("800m", vocab_size=VOCAB_SIZE)
    assert config.num_non_embedding_parameters == 829_440_000
    model = LSRMForCausalLM(config)
    total = model.num_parameters()
    model.save_pretrained(tmp_path / "model", max_shard_size="1GB")
    sums = {name: float(tensor.detach().sum()) for name, tensor in model.named_parameters()}
    del model
    shards = list((tmp_path / "model").glob("model-*.safetensors"))
    assert len(shards) >= 4
    assert sum(path.stat().st_size for path in shards) == pytest.approx(4 * total, rel=1e-3)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.num_parameters() == total
    assert {name: float(tensor.detach().sum()) for name, tensor in model.named_parameters()} == sums
    assert model.lm_head.weight is model.model.embed_tokens.weight

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False)
    input_ids = torch.randint(2, VOCAB_SIZE, (1, 50), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(2):
        loss = model(input_ids=input_ids, labels=input_ids).loss
        losses.append(float(loss.detach()))
        if len(losses) == 1:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert losses[0] == pytest.approx(math.log(VOCAB_SIZE), rel=0.2)
    assert all(map(math.isfinite, losses))
    assert losses[1] != losses[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"losses {losses}, peak memory {peak / 2**30:.1f} GiB")
    assert peak < LIMIT
