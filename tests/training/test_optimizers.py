"""Muon for matrices and a rate of its own for the table: which weights, how far, and that a run goes on exactly."""

import copy

import pytest
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments
from sr_transformers.training.optimizers import Together, multiply_rate, take, with_muon


def small():
    torch.manual_seed(0)
    config = LSRMConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, residual="gated", embedding_dropout=0.0)
    config.residual_dropout = 0.0
    return LSRMForCausalLM(config)


def make_rows(optimizer, tables):
    """Another optimizer for the tables, as row updates have."""
    take(optimizer, tables)
    return torch.optim.SparseAdam(tables, lr=1e-3)


def step(model, optimizer):
    ids = torch.arange(2, 18).view(2, 8)
    optimizer.zero_grad()
    model(ids, labels=ids).loss.backward()
    optimizer.step()


def test_muon_has_the_matrices_of_the_blocks_and_nothing_else():
    model = small()
    optimizer = with_muon(torch.optim.AdamW(model.parameters(), lr=1e-3), model, 1e-3, 0.0)
    muon, adam = optimizer.optimizers
    assert isinstance(muon, torch.optim.Muon)
    assert sum(one.numel() for one in muon.param_groups[0]["params"]) == model.config.num_non_embedding_parameters
    everything = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(everything) == sorted(map(id, model.parameters()))
    assert id(model.lm_head.weight) in {id(one) for group in adam.param_groups for one in group["params"]}


@pytest.mark.parametrize("position", ["learned", "rotary", "relative"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_single_optimizers_have_every_weight_once(position, groups):
    """Also where all of a group goes to another optimizer, as in a model without a table of positions."""
    torch.manual_seed(0)
    model = LSRMForCausalLM(LSRMConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, position=position))
    tables = [model.model.embed_tokens.weight]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    given = [{"params": decayed}, {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(given[:groups] if groups == 2 else model.parameters(), lr=1e-3)
    rows = make_rows(adam, tables)
    together = with_muon(Together([rows, adam]), model, 1e-3, 0.0)
    found = [id(p) for one in together.optimizers for group in one.param_groups for p in group["params"]]
    assert sorted(found) == sorted(map(id, model.parameters()))
    assert [id(p) for group in together.param_groups for p in group["params"]] == found


def test_together_is_each_on_its_own():
    """Three steps, a rate that changes, a state that is saved and loaded in between."""
    one, two = small(), small()
    together = with_muon(torch.optim.AdamW(one.parameters(), lr=1e-2, weight_decay=0.1), one, 1e-2, 0.1)
    matrices = [p for name, p in two.named_parameters() if ".layers." in name and p.ndim == 2]
    rest = [p for p in two.parameters() if all(p is not matrix for matrix in matrices)]
    apart = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1e-2, weight_decay=0.1),
    ]
    for number, rate in enumerate((1e-2, 5e-3, 2e-3)):
        for group in [*together.param_groups, *apart[0].param_groups, *apart[1].param_groups]:
            group["lr"] = rate
        step(one, together)
        ids = torch.arange(2, 18).view(2, 8)
        for optimizer in apart:
            optimizer.zero_grad()
        two(ids, labels=ids).loss.backward()
        for optimizer in apart:
            optimizer.step()
        for (name, mine), theirs in zip(one.named_parameters(), two.parameters(), strict=True):
            assert torch.equal(mine, theirs), (number, name)
        kept = copy.deepcopy(together.state_dict())
        fresh = with_muon(torch.optim.AdamW(one.parameters(), lr=1.0), one, 1.0, 0.0)
        fresh.load_state_dict(kept)
        together = fresh


def test_a_closure_is_called_once():
    weight, calls = torch.nn.Parameter(torch.ones(2)), []
    assert Together([torch.optim.SGD([weight], lr=0.1)]).step(lambda: calls.append(1) or 7.0) == 7.0
    assert calls == [1]


@pytest.mark.parametrize("muon", [False, True])
def test_the_table_moves_faster(muon):
    """Adam's first step is the learning rate, whatever the gradient."""
    model = small()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-30)
    multiply_rate(optimizer, [model.model.embed_tokens.weight, model.lm_head.weight], 5.0)
    if muon:
        optimizer = with_muon(optimizer, model, 1e-3, 0.0)
    step(model, optimizer)
    moved = {name: (value - before[name]).abs().max().item() for name, value in model.state_dict().items()}
    assert moved["model.embed_tokens.weight"] == pytest.approx(5e-3, rel=1e-3)
    assert moved["model.embed_positions.weight"] == pytest.approx(1e-3, rel=1e-3)
    if not muon:
        assert moved["model.layers.0.mlp.up_proj.weight"] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("keep", [False, True])
def test_the_table_may_decay_as_before(keep):
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    multiply_rate(optimizer, [model.model.embed_tokens.weight, model.lm_head.weight], 5.0, keep)
    taken = {group["lr"]: group["lr"] * group["weight_decay"] for group in optimizer.param_groups}
    assert taken == pytest.approx({1e-2: 5e-3, 5e-2: 5e-3 if keep else 25e-3})


def test_what_does_not_go_together_is_refused(markov_prepared, tmp_path):
    with pytest.raises(ValueError, match="optimizer is 'adam'; choose from muon"):
        LSRMTrainingArguments(str(tmp_path), optimizer="adam")
    with pytest.raises(ValueError, match="table_lr_multiplier is 0; it must be a number above 0"):
        LSRMTrainingArguments(str(tmp_path), table_lr_multiplier=0)
    model = LSRMForCausalLM(LSRMConfig(vocab_size=markov_prepared.vocab_size, hidden_size=8))
    own = torch.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="decay_epochs sets weight_decay; give one of the two"):
        LSRMTrainingArguments(str(tmp_path), decay_epochs=5, weight_decay=0.1)
    with pytest.raises(ValueError, match="decay_epochs is 0; it must be a number above 0"):
        LSRMTrainingArguments(str(tmp_path), decay_epochs=0)
    with pytest.raises(ValueError, match=r"table_updates lazy_adam .* needs decay_epochs null"):
        LSRMTrainingArguments(
            str(tmp_path), decay_epochs=5, table_updates="lazy_adam", num_negatives=4, switch_optimizer=False
        )
    for settings in ({"optimizer": "muon"}, {"table_lr_multiplier": 2.0}, {"decay_epochs": 2.0}):
        args = LSRMTrainingArguments(str(tmp_path), switch_optimizer=False, **settings)
        with pytest.raises(ValueError, match="an optimizer of your own is used as it is"):
            LSRMTrainer(model, args, train_dataset=markov_prepared.train_dataset(), optimizers=(own, None))
    with pytest.raises(ValueError, match="this model has none to train; set optimizer to null"):
        with_muon(torch.optim.Adam([torch.nn.Parameter(torch.ones(1))]), torch.nn.Linear(2, 2), 0.1, 0.0)


@pytest.mark.parametrize(("muon", "accumulated"), [("muon", 1), (None, 3)])
def test_decay_in_epochs_is_weight_decay(markov_prepared, tmp_path, muon, accumulated):
    """The same weights, bit by bit, as with the number that it stands for; norms and biases have none."""
    ends = []
    for name, decay in (("epochs", {"decay_epochs": 2.0}), ("number", {})):
        torch.manual_seed(0)
        model = LSRMForCausalLM(LSRMConfig(vocab_size=markov_prepared.vocab_size, hidden_size=8))
        args = LSRMTrainingArguments(
            str(tmp_path / name),
            optimizer=muon,
            gradient_accumulation_steps=accumulated,
            num_train_epochs=1,
            per_device_train_batch_size=8,
            learning_rate=0.01,
            warmup_steps=0.1,
            precision="fp32",
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            switch_optimizer=False,
            **decay,
        )
        if name == "number":
            args.weight_decay = ends[0][1]
        trainer = LSRMTrainer(model, args, train_dataset=markov_prepared.train_dataset())
        trainer.train()
        (decayed,) = {group["weight_decay"] for group in trainer.optimizer.param_groups} - {0.0}
        assert 0.0 in {group["weight_decay"] for group in trainer.optimizer.param_groups}
        assert decayed == pytest.approx(1 / (0.01 * 2.0 * trainer.state.global_step))
        assert args.weight_decay == (0.0 if name == "epochs" else decayed)
        ends.append((model.state_dict(), decayed))
    assert all(torch.equal(one, other) for one, other in zip(*(end[0].values() for end in ends), strict=True))


def test_decay_in_epochs_needs_the_steps_of_an_epoch(markov_prepared, tmp_path):
    model = LSRMForCausalLM(LSRMConfig(vocab_size=markov_prepared.vocab_size, hidden_size=8))
    never = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    args = LSRMTrainingArguments(str(tmp_path), decay_epochs=2.0, switch_optimizer=False, **never)
    trainer = LSRMTrainer(model, args, train_dataset=markov_prepared.train_dataset())
    with pytest.raises(ValueError, match="needs the steps of an epoch"):
        trainer.create_optimizer()
    assert args.weight_decay == 0.0


def test_a_learned_temperature_does_not_decay(markov_prepared, tmp_path):
    model = LSRMForCausalLM(LSRMConfig(vocab_size=markov_prepared.vocab_size, hidden_size=8, head="scaled"))
    never = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    args = LSRMTrainingArguments(str(tmp_path), weight_decay=0.1, switch_optimizer=False, **never)
    optimizer = LSRMTrainer(model, args, train_dataset=markov_prepared.train_dataset()).create_optimizer()
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0), name
