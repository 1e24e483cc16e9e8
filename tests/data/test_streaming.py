import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sr_transformers.data.batches import EpochBatchSampler, PackingCollator
from sr_transformers.data.describe import describe
from sr_transformers.data.fractions import FractionOfData
from sr_transformers.data.logs.synthetic import generate
from sr_transformers.data.packing import ALL_POSITIONS
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.streaming import StreamedData, WindowStream
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.training.arguments import LSRMTrainingArguments
from sr_transformers.training.trainer import LSRMTrainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> PreparedData:
    """A Markov log in four shards, all at hand; three domains."""
    log = generate(num_users=200, num_items=30, num_successors=3, mean_length=12)
    log = log.with_columns(domain=log["item_id"] % 3)
    return prepare(log, tmp_path_factory.mktemp("sharded") / "data", shards=4)


@pytest.fixture
def streamed(whole, tmp_path) -> StreamedData:
    """The same set without its shards, which are fetched from elsewhere, one at a time."""
    shutil.copytree(whole.path, tmp_path / "small", ignore=shutil.ignore_patterns("histories-*"))
    return StreamedData(tmp_path / "small", f"file://{whole.path}", tmp_path / "cache", keep=1)


def fetched(data: StreamedData) -> list[str]:
    return sorted(path.name for path in data.cache.glob("histories-*"))


def test_histories_are_the_same_and_only_a_few_shards_are_kept(whole, streamed):
    assert streamed.lengths.tolist() == whole.lengths.tolist()
    assert streamed.train_lengths.tolist() == whole.train_lengths.tolist()
    assert streamed.shard_bounds.tolist() == whole.shard_bounds.tolist()
    assert fetched(streamed) == []
    for history, length in enumerate(whole.lengths.tolist()):
        assert streamed.items(history, length, 1).tolist() == whole.items(history, length, 1).tolist()
        assert streamed.domains(history, length).tolist() == whole.domains(history, length).tolist()
        assert len(fetched(streamed)) == 1
    assert fetched(streamed) == ["histories-00003-of-00004.arrow"]
    streamed.keep = 3
    for history in (0, 199, 100, 0):
        streamed.items(history, 2)
    assert len(fetched(streamed)) == 3


def sampler_of(data: PreparedData, world_size: int = 1, rank: int = 0) -> EpochBatchSampler:
    return EpochBatchSampler(data.train_lengths, 8, 16, 6, 0, ALL_POSITIONS, 1, world_size, rank, data.shard_bounds)


def test_an_epoch_goes_through_one_shard_after_the_other(whole):
    orders = set()
    for epoch in range(4):
        sampler = sampler_of(whole)
        sampler.set_epoch(epoch)
        histories = np.concatenate([window[:, 0] for batch in sampler for window in batch])
        shards = np.searchsorted(whole.shard_bounds, histories, side="right") - 1
        turns = shards[np.concatenate([[True], shards[1:] != shards[:-1]])]
        assert sorted(turns.tolist()) == [0, 1, 2, 3]
        orders.add(tuple(turns.tolist()))
        pairs = sum(int(window[:, 2].sum()) for batch in sampler for window in batch)
        assert pairs == int((whole.train_lengths - 1).sum())
    assert len(orders) > 1


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_has_the_batches_of_every_rank(whole, streamed, world_size, workers):
    for rank in range(world_size):
        expected = list(WindowStream(whole, sampler_of(whole, world_size, rank), PackingCollator(16)))
        stream = WindowStream(streamed, sampler_of(streamed, world_size, rank), PackingCollator(16))
        loader = DataLoader(stream, batch_size=None, num_workers=workers)
        batches = list(loader)
        assert len(batches) == len(expected) == len(loader)
        for one, other in zip(batches, expected, strict=True):
            assert torch.equal(one["input_ids"], other["input_ids"])
            assert torch.equal(one["shift_labels"], other["shift_labels"])
        stream.set_epoch(1)
        again = next(iter(stream))
        assert not torch.equal(again["input_ids"], expected[0]["input_ids"])


def test_workers_that_stay_read_every_epoch(whole):
    stream = WindowStream(whole, sampler_of(whole), PackingCollator(16))
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    for epoch in range(3):
        stream.set_epoch(epoch)
        found = [one["input_ids"] for one in loader]
        expected = WindowStream(whole, sampler_of(whole), PackingCollator(16))
        expected.set_epoch(epoch)
        assert all(torch.equal(one, batch["input_ids"]) for one, batch in zip(found, expected, strict=True)), epoch


def test_shards_of_an_earlier_folder_are_fetched_anew(streamed, whole):
    history = int(whole.shard_bounds[1]) - 1
    expected = streamed.items(history, 2).tolist()
    (stale,) = streamed.cache.glob("histories-*")
    streamed._open.clear()
    stale.write_bytes(stale.read_bytes()[:-8])
    assert streamed.items(history, 2).tolist() == expected
    streamed._open.clear()
    stale.write_bytes(b"short")
    streamed.shards_at = f"file://{streamed.cache}/elsewhere"
    (streamed.cache / "elsewhere").mkdir()
    (streamed.cache / "elsewhere" / stale.name).write_bytes(b"another")
    with pytest.raises(ValueError, match=r"the shard that lies at file://.*elsewhere is another"):
        streamed.items(history, 2)


def test_what_a_stream_cannot_do_is_said(streamed, whole, tmp_path):
    with pytest.raises(ValueError, match=r"is streamed, so its histories are not all here"):
        describe(streamed)
    with pytest.raises(ValueError, match="keep is 0"):
        StreamedData(streamed.path, f"file://{whole.path}", tmp_path, keep=0)
    with pytest.raises(ValueError, match="a fraction of StreamedData is not known"):
        FractionOfData(streamed, "users", 0.5)


def train(data: PreparedData, output) -> tuple[list[float], dict]:
    torch.manual_seed(0)
    model = LSRMForCausalLM(
        LSRMConfig(vocab_size=data.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                   max_position_embeddings=8, history=["items", "baskets", "clock"])
    )  # fmt: skip
    arguments = LSRMTrainingArguments(
        output_dir=str(output), num_train_epochs=2, per_device_train_batch_size=8, logging_steps=1, seed=1,
        report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = LSRMTrainer(
        model, arguments, train_dataset=data.train_dataset(), eval_dataset=data.eval_dataset("validation")
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, trainer.evaluate()


@pytest.mark.slow
def test_training_on_a_stream_gives_the_loss_of_training_on_the_mapped_set(whole, streamed, tmp_path):
    losses, metrics = train(whole, tmp_path / "mapped")
    streamed_losses, streamed_metrics = train(streamed, tmp_path / "streamed")
    assert streamed_losses == losses
    assert len(losses) > 10
    assert streamed_metrics["eval_loss"] == metrics["eval_loss"]
    assert len(fetched(streamed)) == 1


def test_a_missing_shard_is_named(streamed):
    streamed.shards_at = "file:///nowhere"
    with pytest.raises(FileNotFoundError, match=r"file:///nowhere/histories-0.*arrow: there is no such shard"):
        streamed.items(0, 1)
    assert fetched(streamed) == []


def test_a_set_in_one_piece_is_not_streamed(prepared, tmp_path):
    with pytest.raises(ValueError, match="was prepared in one piece; prepare it with shards=N to stream it"):
        StreamedData(prepared.path, "file:///nowhere", tmp_path)


def test_a_set_without_domains_says_so(markov_prepared, tmp_path):
    log = generate(num_users=20, num_items=10, num_successors=2, mean_length=6)
    data = prepare(log, tmp_path / "data", shards=2)
    with pytest.raises(ValueError, match="has no domains"):
        StreamedData(data.path, str(data.path), tmp_path / "cache").domains(0, 1)
