"""Started by test_divided: worlds of 1, 2, 3 and 4 processes, in each of which a divided item table must do what a
whole one does. The processes are forked, so that torch is imported once.
"""

import copy
import functools
import json
import os
import sys
import time
import traceback
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender, Session
from sr_transformers.data.past_inputs import Past
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.evaluation.evaluator import rank_histories
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.lsrm import loss_lsrm
from sr_transformers.lsrm.divided_lsrm import division
from sr_transformers.training import first_rows
from sr_transformers.training.vocabulary_parallel import (
    average_gradients,
    by_mesh,
    clip_gradients,
    divide,
    load_divided,
    new_divided,
)

SIZES = (1, 2, 3, 4)
NO_DROPOUT = {"embedding_dropout": 0.0, "residual_dropout": 0.0}
MODELS = {
    "tied, uneven": {"vocab_size": 23},
    "even": {"vocab_size": 24, "num_items": 19},  # whole parts may hold rows that are no items
    "fewer rows than processes need": {"vocab_size": 5},
    "one item": {"vocab_size": 3},
    "untied": {"vocab_size": 23, "tie_word_embeddings": False},
    "scaled": {"vocab_size": 23, "head": "scaled", "position": "rotary", "hidden_act": "swiglu"},
    "normalised": {"vocab_size": 23, "head": "normalised", "position": "relative"},
    "history": {"vocab_size": 23, "history": ["recency", "bigrams", "items"]},
}


def make(dtype=torch.float64, **settings):
    """A whole model, the same in every process, whose numbers are large enough to matter."""
    torch.manual_seed(1)
    config = LSRMConfig(
        hidden_size=8, num_hidden_layers=1, max_position_embeddings=6, initializer_range=0.4, **NO_DROPOUT, **settings
    )
    model = LSRMForCausalLM(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "history" in name:
                parameter.normal_(0.0, 0.3)
    return model


@functools.cache  # making groups takes longer than most checks
def mesh(tp, dp=1):
    return init_device_mesh("cpu", (dp, tp), mesh_dim_names=("dp", "tp"))


def batches(vocab_size, steps=4, rows=4, last=None):
    torch.manual_seed(2)
    return torch.randint(2, last or vocab_size, (steps, rows, 6))


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def close(found, expected, tolerance, what):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}")


def same_weights(model, other, tolerance, what):
    others = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        close(whole(parameter.detach()), others[name].detach(), tolerance, f"{what}, {name}")


def same_gradients(model, other, tolerance, what):
    others = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        close(whole(parameter.grad), others[name].grad, tolerance, f"{what}, gradient of {name}")


def negatives(vocab_size, step):
    torch.manual_seed(step)
    ids = torch.randint(2, vocab_size, (7,))
    return {"negative_ids": ids, "negative_log_q": torch.full((7,), -np.log(vocab_size - 2), dtype=torch.float64)}


def check_training(size):
    for name, settings in MODELS.items():
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            one = make(dtype, **settings).train()
            many = divide(copy.deepcopy(one), mesh(size)["tp"] if name == "even" else mesh(size))
            assert (many.lm_head.weight is many.model.embed_tokens.weight) == one.config.tie_word_embeddings
            table = many.model.embed_tokens.weight
            assert table.to_local().shape[0] <= -(-one.config.vocab_size // size)
            last = one.config.num_items and one.config.num_items + 2
            pairs = [(model, torch.optim.AdamW(model.parameters(), lr=0.02)) for model in (one, many)]
            for step, ids in enumerate(batches(one.config.vocab_size, last=last)):
                sampled = step == 3 and not one.config.history and one.config.vocab_size > 5
                more = negatives(one.config.vocab_size, step) if sampled else {}
                losses, norms = [], []
                for model, _ in pairs:
                    model.zero_grad()
                    loss = model(ids, labels=ids, **more).loss
                    loss.backward()
                    losses.append(loss.detach())
                close(losses[1], losses[0], tolerance, f"{name}, loss of step {step}")
                same_gradients(many, one, tolerance, f"{name}, step {step}")
                norms = [torch.nn.utils.clip_grad_norm_(one.parameters(), 0.5), clip_gradients(many.parameters(), 0.5)]
                close(norms[1], norms[0], tolerance, f"{name}, norm of step {step}")
                for _, optimizer in pairs:
                    optimizer.step()
            if dtype == torch.float64:  # Adam divides by roots of gradients: last bits of float32 grow
                same_weights(many, one, 1e-9, name)
            state = pairs[1][1].state[many.model.embed_tokens.weight]["exp_avg"]
            assert state.to_local().shape == table.to_local().shape


def check_chunks(size):
    """Several chunks of rows and blocks of items, rounded products, and batches without targets."""
    sizes = loss_lsrm._CPU_SIZES
    loss_lsrm._CPU_SIZES = (1 << 10, 5, 3)
    try:
        for name in ("tied, uneven", "history"):
            one = make(**MODELS[name])
            many = divide(copy.deepcopy(one), mesh(size))
            ids = batches(23, 1)[0]
            for labels in (ids, torch.full_like(ids, -100)):
                for model in (one, many):
                    model.zero_grad()
                    model(ids, labels=labels, skip_logits=True).loss.backward()
                same_gradients(many, one, 1e-10, "chunks")
        one = make(torch.float32, **MODELS["tied, uneven"])
        many = divide(copy.deepcopy(one), mesh(size))
        found = []
        for model in (one, many):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(ids, labels=ids, skip_logits=True).loss
            loss.backward()
            found.append(loss.detach())
        close(found[1], found[0], 5e-3, "bf16")
        close(whole(many.model.embed_tokens.weight.grad), one.model.embed_tokens.weight.grad, 2e-2, "gradient in bf16")
    finally:
        loss_lsrm._CPU_SIZES = sizes


def check_logits(size):
    for name, settings in MODELS.items():
        one = make(**settings).eval()
        many = divide(copy.deepcopy(one), mesh(size)).eval()
        ids = batches(one.config.vocab_size, 1)[0][:, :3]
        found = []
        for model in (one, many):
            model.zero_grad()
            logits = model(ids).logits
            (logits[..., 2:5].square().sum() + logits[:, -1].logsumexp(-1).sum()).backward()
            found.append(logits.detach())
        close(found[1], found[0], 1e-10, f"{name}, logits")
        same_gradients(many, one, 1e-9, f"{name}, of logits")
        generated = [model.generate(ids, max_new_tokens=2, do_sample=False) for model in (one, many)]
        assert torch.equal(*generated), name


def histories(vocab_size, users=9):
    rng = np.random.default_rng(0)
    found = [rng.integers(2, vocab_size, length) for length in rng.integers(1, 12, users)]
    return [*found, np.zeros(0, np.int64)]


def check_ranks(size):
    for name, settings in MODELS.items():
        one = make(torch.float32, **settings).eval()
        tokens = 2 + (one.config.num_items or one.config.vocab_size - 2)
        with torch.no_grad():  # far apart, and 0 however the products are rounded: ties
            for weight in {one.model.embed_tokens.weight, one.lm_head.weight}:
                weight[tokens - 1], weight[2] = 0.0, 0.0
        many = divide(copy.deepcopy(one), mesh(size)).eval()
        shown = histories(tokens)
        targets = np.array([2, tokens - 1, 1] + [3 % tokens] * 7, np.int64)
        targets[targets >= tokens] = tokens - 1
        pasts = [Past(history) for history in shown]
        scorers = [ModelScorer(one), ModelScorer(many)]
        assert (scorers[0].part, scorers[1].part is None) == (None, False)
        assert scorers[1].score_here(shown).shape[1] <= -(-one.config.vocab_size // size)
        close(scorers[1].score(shown), scorers[0].score(shown), 1e-5, f"{name}, scores")
        for seen in (None, shown):
            found = [rank_histories(scorer, pasts, targets, seen, (3, 50)) for scorer in scorers]
            (ranking, losses), (others, other_losses) = found
            assert ranking.ranks.tolist() == others.ranks.tolist(), name
            assert ranking.top.tolist() == others.top.tolist(), name
            np.testing.assert_allclose(other_losses, losses, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            many.model.norm.weight.fill_(torch.nan)
        refused(lambda scorer=scorers[1], of=(pasts, targets): rank_histories(scorer, *of, None, (3,)), "diverged")


def check_serving(size):
    items = [f"i{number}" for number in range(21)]
    counts = np.arange(21)[::-1] % 7
    for name in ("tied, uneven", "normalised", "history"):
        one = make(torch.float32, **MODELS[name]).eval()
        many = divide(copy.deepcopy(one), mesh(size)).eval()
        both = [Recommender(model, build_tokenizer(items, counts)) for model in (one, many)]
        asked = [["i3", "i20", "i3"], ["i0"], [], ["i7"] * 9]
        for options in (
            {"fallback": "popularity", "k": 5},
            {"fallback": "popularity", "k": 99, "exclude_seen": False},
            {"fallback": "popularity", "candidates": ["i1", "i20", "i5"], "exclude": ["i5"]},
            *([{"fallback": "popularity", "explain": True, "k": 4}] if name == "history" else []),
        ):
            same_lists(*(each.recommend_batch(asked, **options) for each in both), f"{name}, {options}")
        sessions = [Session(each, ["i3", "i4"]) for each in both]
        for item in ("i5", "i3", "i20", "i9", "i8", "i1"):  # beyond the window
            same_lists(*([session.recommend(4)] for session in sessions), f"{name}, session")
            for session in sessions:
                session.add(item)
        refused(lambda both=both: both[1].item_embeddings(), "divided over processes")


def same_lists(found, expected, what):
    for one, other in zip(found, expected, strict=True):
        assert [entry.item for entry in one] == [entry.item for entry in other], what
        for entry, another in zip(one, other, strict=True):
            for value, wanted in zip(astuple(entry), astuple(another), strict=True):
                if isinstance(value, float):
                    np.testing.assert_allclose(value, wanted, rtol=2e-5, atol=1e-6, err_msg=what)


def check_files(size, folder):
    """Saved by this number of processes, read by one and by this number; and what the world before has saved."""
    for name in ("tied, uneven", "even", "fewer rows than processes need", "untied", "history"):
        one = make(torch.float32, **MODELS[name]).eval()
        place = folder / name.replace(" ", "-").replace(",", "")
        many = divide(copy.deepcopy(one), mesh(size))
        many.save_pretrained(place / str(size))
        assert sorted(file.name for file in (place / str(size)).glob("*.safetensors*")) == [
            "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"
        ]  # fmt: skip
        index = json.loads((place / str(size) / "model.safetensors.index.json").read_text())
        assert ("lm_head.weight" in index["weight_map"]) != one.config.tie_word_embeddings
        assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in one.parameters())
        back = AutoModelForCausalLM.from_pretrained(place / str(size))
        assert back.config.to_dict() == {
            **one.config.to_dict(),
            **{k: back.config.to_dict()[k] for k in HEAD_OF_CONFIG},
        }
        exact(back, one, f"{name}, saved by {size}")
        if size == 1:
            one.save_pretrained(place / "whole")
        for other in (place / str(max(size - 1, 1)), place / "whole"):
            exact(load_divided(other, mesh(size)), one, f"{name}, loaded by {size}")
            if size == 2:  # the plan divides the two heads of the blocks too
                plan = DistributedConfig(tp_size=size, tp_plan="auto")
                auto = AutoModelForCausalLM.from_pretrained(other, distributed_config=plan)
                exact(auto, one, f"{name}, by transformers' own plan")
                ids = batches(one.config.vocab_size, 1, last=one.config.num_items)[0]
                found = [model.train()(ids, labels=ids).loss for model in (one, auto)]
                close(found[1].detach(), found[0].detach(), 1e-5, f"{name}, by plan")
                assert division(auto.lm_head.weight) is not None
                if "items" in one.config.history:
                    assert division(auto.history.item_table.weight) is not None
                if other == place / "whole":
                    auto.save_pretrained(place / f"auto{size}")
                    exact(AutoModelForCausalLM.from_pretrained(place / f"auto{size}"), one, f"{name}, saved by plan")


HEAD_OF_CONFIG = ("architectures", "auto_map", "dtype", "_name_or_path", "transformers_version")


def exact(model, other, what):
    others = dict(other.named_parameters())
    assert dict(model.named_parameters()).keys() == others.keys(), what
    for name, parameter in model.named_parameters():
        assert torch.equal(whole(parameter.detach()), others[name].detach()), f"{what}: {name}"


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that an operation made, in bytes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        local = found.to_local() if isinstance(found, DTensor) else found
        # Views make nothing, nor does a file that is mapped: only what is used of it is read.
        new = not func.is_view and func is not torch.ops.aten.set_.source_Storage
        if isinstance(local, torch.Tensor) and local.device.type != "meta" and new:
            self.bytes = max(self.bytes, local.numel() * local.element_size())
        return found


def check_no_whole_table(size, folder):
    """From the first weights to the optimizer, nothing is larger than one process's rows."""
    config = LSRMConfig(vocab_size=4_001, hidden_size=8, num_hidden_layers=1, max_position_embeddings=3, **NO_DROPOUT)
    part = -(-4_001 // size) * 8 * 4
    first_rows._BLOCK = 100
    ids = batches(4_001, 1, rows=2)[0][:, :3]
    with Largest() as largest:
        model = new_divided(config, mesh(size), seed=5)
        optimizers = [torch.optim.AdamW(group, fused=True) for group in by_mesh(model.parameters())]
        model.train()(ids, labels=ids).loss.backward()
        clip_gradients(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        rank_histories(ModelScorer(model), [Past(np.array([5]))], np.array([7]), None, (10,))
        model.save_pretrained(folder / f"large{size}")
        load_divided(folder / f"large{size}", mesh(size))
    assert 0 < largest.bytes <= part, (largest.bytes, part)
    with Largest() as largest:
        torch.manual_seed(5)
        LSRMForCausalLM(config)
    assert largest.bytes >= 4_001 * 8 * 4  # it would have been seen


def check_first_weights(size):
    """Bit by bit those of a model that is made whole, in blocks of which the last has too few numbers for one."""
    first_rows._BLOCK = 10
    state = torch.get_rng_state()
    tables = (
        {"vocab_size": 4_001},
        {"vocab_size": 4_000, "tie_word_embeddings": False},
        {"vocab_size": 301, "history": ["items"]},
    )
    for name, settings in (*MODELS.items(), *((str(one), one) for one in tables)):
        config = LSRMConfig(hidden_size=8, num_hidden_layers=1, max_position_embeddings=6, **settings)
        model = new_divided(config, mesh(size), seed=7)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(7)
        exact(model, LSRMForCausalLM(config), f"{name}, first weights")
        torch.set_rng_state(state)


def check_copies(size):
    """Two dimensions: copies with rows of their own, each divided."""
    for tp in (1, 2):
        if size % tp or size // tp == 1:
            continue
        both = mesh(tp, size // tp)
        one = make(vocab_size=23).train()
        many = divide(copy.deepcopy(one), both)
        optimizers = [torch.optim.AdamW(model.parameters(), lr=0.02) for model in (one, many)]
        mine = both["dp"].get_local_rank()
        for ids in batches(23, rows=12):
            targets = ids[:, 1:].numel()
            for model, optimizer in zip((one, many), optimizers, strict=True):
                rows = ids if model is one else ids.chunk(size // tp)[mine]
                for part in rows.chunk(2):  # micro-batches
                    loss = model(part, labels=part, num_items_in_batch=targets).loss
                    (loss if model is one else loss * (size // tp)).backward()
                if model is many:
                    average_gradients(model.parameters(), both["dp"])
                clip_gradients(model.parameters(), 0.5)
                optimizer.step()
                model.zero_grad()
        same_weights(many, one, 1e-9, f"dp {size // tp}, tp {tp}")


def refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def check_refusals(size, folder):
    rank = dist.get_rank()
    model = divide(make(vocab_size=23), mesh(size)).train()
    ids = batches(23, 1)[0]
    if size > 1:
        other = ids.clone()
        other[0, 3] = 2 + rank
        refused(lambda: model(ids, labels=other), "different targets")
        more = negatives(23, rank)
        refused(lambda: model(ids, labels=ids, **more), "different negatives")
        fewer = ids.clone()
        fewer[0, 1 : 2 + rank] = -100
        refused(lambda: model(ids, labels=fewer), "different numbers of targets")
        model.model.embedding_dropout.p = 0.5
        torch.manual_seed(rank)
        refused(lambda: model(ids, labels=ids), "dropout draws other numbers")
    refused(lambda: ModelScorer(model, compile=True), "do without compile")
    refused(lambda: model.resize_token_embeddings(30), "keeps its size")
    refused(lambda: model.save_pretrained(folder / "no", max_shard_size="1MB"), "max_shard_size")
    refused(lambda: divide(make(vocab_size=23, history=["mix"]), mesh(size)), "counts of mix")
    if size == 2:
        if rank == 0:
            make(vocab_size=23, history=["mix"]).save_pretrained(folder / "mix")
            make(vocab_size=23).save_pretrained(folder / "short")
            (folder / "short" / "config.json").write_text(make(vocab_size=24).config.to_json_string())
            make(vocab_size=23).save_pretrained(folder / "lacking")
            untied = make(vocab_size=23, tie_word_embeddings=False).config
            (folder / "lacking" / "config.json").write_text(untied.to_json_string())
        dist.barrier()
        plan = DistributedConfig(tp_size=2, tp_plan="auto")
        auto = AutoModelForCausalLM.from_pretrained(folder / "mix", distributed_config=plan)
        refused(lambda: auto(ids, labels=ids), "counts of mix")
        refused(lambda: load_divided(folder / "short", mesh(size)), "is no weight of this model")
        refused(lambda: load_divided(folder / "lacking", mesh(size)), "lacks the weights lm_head.weight")


def work(rank, size, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store{size}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    try:
        for check in CHECKS:
            start = time.perf_counter()
            check(*((size, Path(folder)) if check.__code__.co_argcount == 2 else (size,)))
            if rank == 0 and os.environ.get("DIVIDED_TIMES"):
                print(check.__name__, round(time.perf_counter() - start, 1), round(time.process_time(), 1), flush=True)
    except Exception:
        print(f"rank {rank} of {size}: {traceback.format_exc()}", file=sys.stderr, flush=True)
        os._exit(1)
    print(f"rank {rank} of {size} agrees", flush=True)
    dist.destroy_process_group()


CHECKS = [check_training, check_chunks, check_logits, check_ranks, check_serving, check_files, check_no_whole_table,
          check_first_weights, check_copies, check_refusals]  # fmt: skip

if __name__ == "__main__":
    wanted = sys.argv[2:]
    CHECKS = [check for check in CHECKS if not wanted or check.__name__ in wanted]
    for world in SIZES:
        mp.start_processes(work, (world, sys.argv[1]), world, start_method="fork")
