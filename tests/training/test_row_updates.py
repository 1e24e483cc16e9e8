"""Updates of the rows that a step touches: the same gradients, other rows untouched to the bit, and an exact resume."""

import copy
import shutil

import pytest
import torch
from torch import nn
from transformers import TrainerCallback, set_seed

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments
from sr_transformers.data.logs import synthetic
from sr_transformers.data.prepare import prepare
from sr_transformers.training.checkpoints import last_complete_checkpoint
from sr_transformers.training.row_updates import RowAdagrad, clip_with_rows, make_sparse, rows_of, tables_of

KINDS = ("lazy_adam", "row_adagrad")
FITTING = {"num_negatives": 8, "weight_decay": 0.0, "sgd_momentum": 0.0}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A log of more items than a few steps touch."""
    log = synthetic.generate(num_users=200, num_items=500, num_successors=3, mean_length=12)
    return prepare(log, tmp_path_factory.mktemp("wide") / "data")


def make(data, folder, *callbacks, model=None, **arguments):
    defaults = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "precision": "fp32",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_total_limit": None,
        "load_best_model_at_end": False,
        "seed": 3,
    }
    set_seed(3)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
    args = LSRMTrainingArguments(output_dir=str(folder), **{**defaults, **FITTING, **arguments})
    return LSRMTrainer(
        LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, **shape, **(model or {}))),
        args,
        train_dataset=data.train_dataset(),
        eval_dataset=data.eval_dataset("validation"),
        callbacks=list(callbacks),
    )


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def loss_of(model):
    ids = torch.tensor([[2, 3, 4, 5, 3, 2], [7, 6, 5, 2, 0, 0]])
    labels = torch.where(ids == 0, -100, ids)
    negatives = torch.tensor([3, 9, 9, 11])
    return model(
        ids, attention_mask=ids != 0, labels=labels, negative_ids=negatives, negative_log_q=-torch.ones(4)
    ).loss


@pytest.mark.parametrize(
    "settings", [{}, {"head": "normalised"}, {"head": "scaled"}, {"tie_word_embeddings": False}], ids=str
)
def test_the_sparse_gradient_is_the_dense_one(settings):
    torch.manual_seed(0)
    config = LSRMConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, embedding_dropout=0.0, **settings)
    model = LSRMForCausalLM(config).eval()
    loss_of(model).backward()
    dense = [one.grad.clone() for one in tables_of(model)]
    model.zero_grad()
    make_sparse(model, True)
    loss_of(model).backward()
    assert len(dense) == (1 if config.tie_word_embeddings else 2)
    for one, expected in zip(tables_of(model), dense, strict=True):
        assert one.grad.is_sparse
        torch.testing.assert_close(one.grad.to_dense(), expected)
        assert len(rows_of(one.grad)[0]) < 12  # of 20
    make_sparse(model, False)
    model.zero_grad()
    loss_of(model).backward()
    assert not tables_of(model)[0].grad.is_sparse


def test_row_adagrad_by_hand():
    table = nn.Parameter(torch.ones(4, 2))
    optimizer = RowAdagrad([table], lr=0.5, eps=0.0)
    steps = ([1, 3, 1], [[1.0, 2.0], [0.0, 4.0], [2.0, 2.0]]), ([1], [[4.0, 0.0]])
    for rows, values in steps:
        table.grad = torch.sparse_coo_tensor([rows], torch.tensor(values), (4, 2), check_invariants=True)
        optimizer.step()
    # Row 1 has the gradients (3, 4), of mean square 12.5, and then (4, 0), of 8; row 3 has (0, 4).
    assert optimizer.state[table]["sum"].tolist() == [0.0, 20.5, 0.0, 8.0]
    second = torch.tensor([1 - 0.5 * 3 / 12.5**0.5 - 0.5 * 4 / 20.5**0.5, 1 - 0.5 * 4 / 12.5**0.5])
    torch.testing.assert_close(table[1].detach(), second)
    torch.testing.assert_close(table[3].detach(), torch.tensor([1.0, 1 - 0.5 * 4 / 8**0.5]))
    assert table[[0, 2]].tolist() == [[1.0, 1.0]] * 2
    assert optimizer.step(lambda: 7.0) == 7.0
    table.grad = torch.ones(4, 2)
    with pytest.raises(ValueError, match="got a gradient for all of its rows"):
        optimizer.step()


@pytest.mark.parametrize("most", [0.1, 100.0, float("inf")])
def test_clipping_is_that_of_torch(most):
    torch.manual_seed(1)
    dense = [nn.Parameter(torch.zeros(5, 3)), nn.Parameter(torch.zeros(7))]
    rows, values = torch.tensor([[4, 0, 4]]), torch.randn(3, 3)
    dense[0].grad, dense[1].grad = (
        torch.sparse_coo_tensor(rows, values, (5, 3), check_invariants=True).to_dense(),
        torch.randn(7),
    )
    mixed = copy.deepcopy([*dense, nn.Parameter(torch.zeros(2))])
    mixed[0].grad, mixed[1].grad = (
        torch.sparse_coo_tensor(rows, values, (5, 3), check_invariants=True),
        dense[1].grad.clone(),
    )
    norm = nn.utils.clip_grad_norm_(dense, most)
    torch.testing.assert_close(clip_with_rows(mixed, most), norm)
    torch.testing.assert_close(mixed[0].grad.to_dense(), dense[0].grad)
    torch.testing.assert_close(mixed[1].grad, dense[1].grad)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_the_rows_that_it_reads_and_no_others(wide, tmp_path, kind):
    """Rows of inputs, targets and negatives, as the batches have them; the first step of Adam is that of dense Adam."""
    read, sparse = set(), []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            sparse.append(model.model.embed_tokens.weight.grad.is_sparse)

    trainer = make(wide, tmp_path / kind, Watch(), max_steps=3, table_updates=kind, max_grad_norm=0.3)
    inner = trainer.model.forward
    before = weights(trainer)["lm_head.weight"]

    def forward(input_ids, **inputs):
        if trainer.model.training:
            for one in (input_ids, inputs["shift_labels"], inputs["negative_ids"]):
                read.update(one.flatten().tolist())
        return inner(input_ids=input_ids, **inputs)

    trainer.model.forward = forward
    trainer.train()
    moved = (weights(trainer)["lm_head.weight"] != before).any(1).nonzero()[:, 0].tolist()
    assert set(moved) == read - {-100, 0}  # the padding row stays
    assert 50 < len(moved) < 400
    assert sparse == [True] * 3


def test_the_first_step_of_lazy_adam_is_that_of_adam(wide, tmp_path):
    """With a second beta of 0, for torch corrects epsilon for the first moments' bias in one of the two only."""
    ends, smooth = {}, {"adam_beta2": 0.0, "adam_epsilon": 1e-4}
    for kind in ("dense", "lazy_adam"):
        trainer = make(wide, tmp_path / kind, max_steps=1, table_updates=kind, max_grad_norm=0.3, **smooth)
        trainer.train()
        ends[kind] = weights(trainer), logged(trainer, "grad_norm")
    assert ends["lazy_adam"][1] == pytest.approx(ends["dense"][1], rel=1e-5)
    for name, value in ends["dense"][0].items():
        torch.testing.assert_close(ends["lazy_adam"][0][name], value, rtol=1e-4, atol=1e-6)


def test_norms_are_logged_without_clipping(wide, tmp_path):
    norms = []
    for kind in ("dense", "row_adagrad"):
        trainer = make(wide, tmp_path / kind, max_steps=1, table_updates=kind, max_grad_norm=0)
        trainer.train()
        norms += logged(trainer, "grad_norm")
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({"table_updates": "lazy_adam", "optimizer": "muon"}, 18),
        ({"table_updates": "row_adagrad", "table_lr_multiplier": 10.0}, 18),
        ({"table_updates": "lazy_adam"}, 36),
    ],
    ids=["lazy adam, muon", "row adagrad, a rate of its own", "after the switch"],
)
def test_a_run_goes_on_with_the_same_bits(markov_prepared, tmp_path, settings, step):
    """hr@50 over 30 items is always 1: both phases end after two evaluations without improvement."""
    plateau = {
        "metric_for_best_model": "hr@50",
        "patience": 2,
        "num_train_epochs": 6,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 9,
        "save_steps": 9,
        "sgd_learning_rate": 0.05,
        "load_best_model_at_end": True,
        **settings,
    }
    whole = make(markov_prepared, tmp_path / "whole", **plateau)
    whole.train()
    assert whole.phases.switched_at == 27
    for kept in {9, step}:
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{kept}", tmp_path / "part" / f"checkpoint-{kept}")
    resumed = make(markov_prepared, tmp_path / "part", **plateau)
    resumed.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path / "part"))
    assert resumed.state.global_step == whole.state.global_step > 36
    last = [
        LSRMForCausalLM.from_pretrained(one / f"checkpoint-{whole.state.global_step}").state_dict()
        for one in (tmp_path / "whole", tmp_path / "part")
    ]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    assert logged(resumed, "loss") == logged(whole, "loss")


def test_the_table_has_its_own_rate_and_settings(wide, tmp_path):
    arguments = {"adam_beta1": 0.8, "adam_epsilon": 1e-6, "optimizer": "muon", "table_lr_multiplier": 10.0}
    trainer = make(wide, tmp_path, table_updates="lazy_adam", **arguments)
    optimizer = trainer.create_optimizer()
    table = trainer.model.lm_head.weight
    found = [one for one in optimizer.optimizers if any(w is table for g in one.param_groups for w in g["params"])]
    assert [type(one) for one in found] == [torch.optim.SparseAdam]
    (group,) = found[0].param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (pytest.approx(0.1), (0.8, 0.999), 1e-6)
    everything = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(everything) == sorted(map(id, trainer.model.parameters()))
    assert trainer.create_optimizer() is optimizer  # as a second call of train asks for it


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_negatives": 0}, r"num_negatives above 0 \(the full softmax reads every row\)"),
        ({"weight_decay": 0.1}, "weight_decay 0"),
        ({"sgd_momentum": 0.9}, "switch_optimizer false, or sgd_momentum 0"),
        ({"torch_compile": True}, "torch_compile false"),
        ({"fsdp": "full_shard"}, "neither fsdp nor deepspeed"),
        ({"num_negatives": 0, "weight_decay": 0.1}, "num_negatives above 0 .*; weight_decay 0"),
    ],
    ids=str,
)
def test_arguments_that_move_all_rows_are_refused(tmp_path, settings, message):
    with pytest.raises(
        ValueError, match=f"table_updates lazy_adam moves the rows of a step only; it needs .*{message}"
    ):
        LSRMTrainingArguments(str(tmp_path), table_updates="lazy_adam", **{**FITTING, **settings})
    LSRMTrainingArguments(str(tmp_path), table_updates="lazy_adam", **FITTING, switch_optimizer=True)
    LSRMTrainingArguments(
        str(tmp_path), table_updates="row_adagrad", num_negatives=1, weight_decay=0.0, switch_optimizer=False
    )


def test_models_that_read_all_rows_are_refused(wide, tmp_path):
    trainer = make(wide, tmp_path, table_updates="lazy_adam")
    handle = trainer.model.lm_head.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="needs the model's own table and head"):
        trainer.train()
    handle.remove()
    trainer.model.lm_head.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="this model's is not trained"):
        trainer.train()


def test_fsdp_of_a_launcher_is_refused(wide, tmp_path):
    trainer = make(wide, tmp_path, table_updates="lazy_adam")
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="table_updates lazy_adam needs the table in one piece"):
        trainer.create_optimizer()


def test_an_optimizer_of_ones_own_has_no_row_updates(wide, tmp_path):
    args = LSRMTrainingArguments(str(tmp_path), table_updates="lazy_adam", switch_optimizer=False, **FITTING)
    model = LSRMForCausalLM(LSRMConfig(vocab_size=wide.vocab_size, hidden_size=8))
    own = torch.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="an optimizer of your own is used as it is"):
        LSRMTrainer(model, args, train_dataset=wide.train_dataset(), optimizers=(own, None))
