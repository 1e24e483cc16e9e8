"""LSRMTrainer takes what transformers' Trainer takes, and says what it cannot take."""

import optuna
import pytest
import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import TrainerCallback

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments, evaluate
from sr_transformers.data.batches import PackingCollator
from sr_transformers.evaluation.evaluator import target_tokens
from sr_transformers.evaluation.metrics import DEFAULT_KS, hit_rate, ndcg
from sr_transformers.evaluation.model_scorer import ModelScorer

QUIET = {"disable_tqdm": True, "seed": 3}


def new_model(data, **more):
    set_seed(3)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
    return LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, **{**sizes, **more}))


def ours(folder, **more):
    defaults = {"num_train_epochs": 2, "learning_rate": 1e-2, "warmup_steps": 0, "precision": "fp32"}
    return LSRMTrainingArguments(output_dir=str(folder), **{**defaults, **QUIET, **more})


def without_validation(folder, **more):
    return ours(folder, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, **more)


def theirs(folder, **more):
    return TrainingArguments(output_dir=str(folder), use_cpu=True, num_train_epochs=2, **{**QUIET, **more})


def sets(data):
    return {"train_dataset": data.train_dataset(), "eval_dataset": data.eval_dataset("validation")}


def test_predict_ranks_every_target_and_reports(markov_prepared, tmp_path):
    data = markov_prepared
    trainer = LSRMTrainer(new_model(data), ours(tmp_path), **sets(data))
    found = trainer.predict(data.eval_dataset("test"))
    ranks, labels, metrics = found
    expected = evaluate(ModelScorer(trainer.model), data, "test")
    assert ranks.shape == labels.shape == (data.num_targets("test"),)
    assert labels.tolist() == target_tokens(data, data.targets("test")).tolist()
    assert hit_rate(ranks, 5).mean() == pytest.approx(expected["metrics"]["hr@5"], abs=1e-12)
    assert ndcg(ranks, 20).mean() == pytest.approx(expected["metrics"]["ndcg@20"], abs=1e-12)
    for name, value in expected["metrics"].items():
        assert metrics[f"test_{name}"] == pytest.approx(value, abs=1e-6)
    assert found.report["protocol"] == expected["protocol"]
    assert found.report["num_targets"] == expected["num_targets"]
    assert {f"hr@{k}" for k in DEFAULT_KS} < set(found.report["metrics"])


def test_ranks_stand_at_their_targets(prepared, tmp_path):
    """Targets outside the vocabulary are -1, each where the split has it."""
    trainer = LSRMTrainer(new_model(prepared), without_validation(tmp_path), **sets(prepared))
    ranks, labels, _ = trainer.predict(prepared.eval_dataset("test"))
    assert ((ranks == -1) == (labels == 1)).all()
    assert (ranks == -1).sum() == 2
    assert (ranks[labels != 1] >= 1).all()


def test_metrics_of_ones_own_come_from_ranks_and_may_decide(markov_prepared, tmp_path):
    def first(found):
        return {"first": float((found.predictions == 1).mean()), "eval_tokens": int(found.label_ids.min())}

    trainer = LSRMTrainer(new_model(markov_prepared), ours(tmp_path), **sets(markov_prepared), compute_metrics=first)
    metrics = trainer.evaluate()
    assert metrics["eval_first"] == pytest.approx(metrics["eval_hr@1"])
    assert metrics["eval_tokens"] >= 2


def test_callbacks_collator_and_processing_class_are_taken(markov_prepared, tmp_path):
    seen, batches = [], []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(state.global_step)

    class Collator(PackingCollator):
        def __call__(self, rows):
            batches.append(len(rows))
            return super().__call__(rows)

    tokenizer = markov_prepared.tokenizer
    trainer = LSRMTrainer(
        new_model(markov_prepared), without_validation(tmp_path, max_steps=2), Collator(8), callbacks=[Watch()],
        train_dataset=markov_prepared.train_dataset(), processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    assert seen == [1, 2]
    assert batches
    assert trainer.processing_class is tokenizer


def test_an_optimizer_of_ones_own(markov_prepared, tmp_path):
    model = new_model(markov_prepared)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    args = without_validation(tmp_path, switch_optimizer=False, max_steps=2)
    LSRMTrainer(model, args, train_dataset=markov_prepared.train_dataset(), optimizers=(optimizer, schedule)).train()
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    with pytest.raises(ValueError, match="an optimizer of your own is never switched; set switch_optimizer=False"):
        LSRMTrainer(
            model, without_validation(tmp_path), train_dataset=markov_prepared.train_dataset(),
            optimizers=(optimizer, schedule),
        )  # fmt: skip


def test_a_class_of_optimizer_is_that_of_the_first_phase(markov_prepared, tmp_path):
    trainer = LSRMTrainer(
        new_model(markov_prepared), without_validation(tmp_path, max_steps=1), **sets(markov_prepared),
        optimizer_cls_and_kwargs=(torch.optim.Adagrad, {"lr": 0.5}),
    )  # fmt: skip
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    assert (type(optimizer).__name__, optimizer.param_groups[0]["lr"]) == ("Adagrad", 0.5)


def test_model_init_is_the_same_as_a_model(markov_prepared, tmp_path):
    one = LSRMTrainer(new_model(markov_prepared), without_validation(tmp_path / "a"), **sets(markov_prepared))
    other = LSRMTrainer(
        args=without_validation(tmp_path / "b"), model_init=lambda: new_model(markov_prepared), **sets(markov_prepared)
    )
    one.train()
    other.train()
    assert other.model.config.items_fingerprint == markov_prepared.items_fingerprint
    # Dropout draws from the generator that making the model leaves behind, which set_seed(3) makes the same.
    expected = one.model.state_dict()
    assert expected.keys() == other.model.state_dict().keys()
    assert one.evaluate()["eval_loss"] == pytest.approx(other.evaluate()["eval_loss"], abs=0.2)


def test_a_search_with_optuna(markov_prepared, tmp_path):
    windows = []

    def model_init(trial):
        window = 8 if trial is None else trial.suggest_categorical("window", [4, 8])
        return new_model(markov_prepared, max_position_embeddings=window)

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 0:
                windows.append((model.config.max_position_embeddings, trainer.sampler._plan_arguments[1]))

    trainer = LSRMTrainer(
        args=ours(tmp_path, metric_for_best_model="ndcg@10"), model_init=model_init, **sets(markov_prepared),
        callbacks=[Watch()],
    )  # fmt: skip
    sampler = optuna.samplers.GridSampler({"learning_rate": [1e-6, 1e-2], "window": [4, 8]})
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-2, log=True)},
        n_trials=4, sampler=sampler,
    )  # fmt: skip
    assert best.hyperparameters["learning_rate"] == 1e-2
    assert 0.3 < best.objective < 1
    assert all(model == planned for model, planned in windows)
    assert {model for model, _ in windows} == {4, 8}
    assert len(list(tmp_path.glob("run-*"))) == 4


def test_the_search_has_defaults_of_its_own_and_refuses_what_the_arguments_refuse(markov_prepared, tmp_path):
    trainer = LSRMTrainer(
        args=ours(tmp_path, num_train_epochs=1), model_init=lambda: new_model(markov_prepared), **sets(markov_prepared)
    )
    best = trainer.hyperparameter_search(n_trials=1)
    assert 1e-4 <= best.hyperparameters["learning_rate"] <= 1e-2
    assert best.objective == pytest.approx(trainer.phases.best)
    with pytest.raises(ValueError, match=r"patience is 0; it must be a whole number, at least 1"):
        trainer.hyperparameter_search(lambda trial: {"patience": trial.suggest_int("patience", 0, 0)}, n_trials=1)


def test_the_best_value_of_a_trial_counts_not_the_last(markov_prepared, tmp_path):
    trainer = LSRMTrainer(new_model(markov_prepared), ours(tmp_path), **sets(markov_prepared))
    assert trainer._objective({"eval_loss": 2.0}) == 2.0
    trainer.phases.best = 1.5
    assert trainer._objective({"eval_loss": 2.0}) == 1.5


def test_data_sets_of_another_kind_train_as_transformers_trains_them(markov_prepared, tmp_path):
    """Same losses, same files, and validation by batches of logits."""
    data = markov_prepared
    rows = {"train_dataset": [data.train_dataset(8)[n] for n in range(64)], "eval_dataset": data_rows(data)}
    found = []
    for name, kind in (("a", Trainer), ("b", LSRMTrainer)):
        set_seed(3)
        trainer = kind(
            new_model(data), theirs(tmp_path / name, eval_strategy="epoch", save_strategy="epoch", logging_steps=1),
            DataCollatorForSeq2Seq(data.tokenizer), **rows,
            compute_metrics=lambda found: {"shape": found.predictions.shape[-1]},
        )  # fmt: skip
        trainer.train()
        entries = [
            {key: value for key, value in entry.items() if "runtime" not in key and "second" not in key}
            for entry in trainer.state.log_history
        ]
        files = sorted(path.name for path in (tmp_path / name / "checkpoint-16").iterdir())
        found.append((entries, files, trainer.predict(rows["eval_dataset"]).predictions.shape))
    assert found[0] == found[1]
    assert any("eval_shape" in entry for entry in found[1][0])


def data_rows(data):
    dataset = data.eval_dataset("validation", 8)
    return [dataset[index] for index in range(16)]


@pytest.mark.parametrize("kind", ["plain arguments", "plain data", "both", "a plain eval_dataset"])
def test_arguments_and_data_sets_of_two_kinds_are_refused(markov_prepared, tmp_path, kind):
    data, rows = markov_prepared, [{"input_ids": [2, 3], "labels": [-100, 3]}]
    args = theirs(tmp_path) if kind == "plain arguments" else ours(tmp_path)
    given = {
        "plain arguments": sets(data),
        "plain data": {"train_dataset": rows, "eval_dataset": rows},
        "both": {"train_dataset": rows, "eval_dataset": data.eval_dataset("validation")},
        "a plain eval_dataset": {"train_dataset": data.train_dataset(), "eval_dataset": rows},
    }[kind]
    with pytest.raises(TypeError, match="LSRMTrainingArguments and the data sets of a prepared log go together"):
        LSRMTrainer(new_model(data), args, **given)


def test_what_cannot_be_honoured_is_refused(markov_prepared, prepared, tmp_path):
    data, model, args = markov_prepared, new_model(markov_prepared), ours(tmp_path)
    for name in ("compute_loss_func", "preprocess_logits_for_metrics"):
        with pytest.raises(ValueError, match=f"{name} wants logits"):
            LSRMTrainer(model, args, **sets(data), **{name: print})
    with pytest.raises(TypeError, match="the train_dataset is one of held-out targets"):
        LSRMTrainer(model, args, train_dataset=data.eval_dataset("test"), eval_dataset=data.eval_dataset("test"))
    with pytest.raises(ValueError, match="come from logs of different items"):
        LSRMTrainer(model, args, train_dataset=data.train_dataset(), eval_dataset=prepared.eval_dataset("test"))
    with pytest.raises(ValueError, match="the train_dataset has a window of 5, the model one of 8"):
        LSRMTrainer(model, args, train_dataset=data.train_dataset(5), eval_dataset=data.eval_dataset("test"))
    trainer = LSRMTrainer(model, args, **sets(data))
    with pytest.raises(TypeError, match="ranks its held-out targets, and this is a list"):
        trainer.predict([1])
    with pytest.raises(TypeError, match="ranks its held-out targets, and this is a TrainDataset"):
        trainer.evaluate(data.train_dataset())
    with pytest.raises(ValueError, match="the data set has a window of 5, the model one of 8"):
        trainer.evaluate(data.eval_dataset("test", 5))


def test_a_trainer_that_only_evaluates_does_not_train(markov_prepared, tmp_path):
    trainer = LSRMTrainer(
        new_model(markov_prepared), without_validation(tmp_path), eval_dataset=markov_prepared.eval_dataset("test")
    )
    assert trainer.evaluate()["eval_hr@50"] == 1.0
    with pytest.raises(ValueError, match="requires a train_dataset"):
        trainer.train()
