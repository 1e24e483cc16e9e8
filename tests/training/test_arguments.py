import pickle

import pytest

from sr_transformers import LSRMTrainingArguments
from sr_transformers.training import arguments as module


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objective": "masked"}, "objective is 'masked'; choose from all_positions, last_position"),
        ({"layout": "grid"}, "layout is 'grid'"),
        ({"optim": "adamm"}, "optim is 'adamm'; choose from adamw_torch, "),
        ({"lr_scheduler_type": "wavy"}, "lr_scheduler_type is 'wavy'; choose from linear, "),
        ({"eval_strategy": "daily"}, "eval_strategy is 'daily'; choose from no, steps, epoch"),
        ({"save_strategy": "daily"}, "save_strategy is 'daily'; choose from no, steps, epoch, best"),
        ({"row_width": 10**12}, "row_width is 1000000000000; it must be a whole number, at least 1 and at most"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"num_negatives": -1}, "num_negatives is -1"),
        ({"patience": 0}, "patience is 0"),
        ({"hub_strategy": "every_save"}, "checkpoints have no metrics to publish"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1, which is not supported"),
        ({"precision": "fp32", "bf16": True, "use_cpu": True}, "precision fp32 contradicts bf16"),
        ({"push_to_hub": True}, "push_to_hub needs hub_model_id"),
        (
            {"metric_for_best_model": "ndcg@11"},
            "metric_for_best_model is 'ndcg@11'; validation measures loss, mrr, hr@1",
        ),
        ({"metric_for_best_model": "mrr", "greater_is_better": False}, "mrr is better the greater it is; leave it out"),
        ({"greater_is_better": True}, "loss is better the smaller it is"),
        ({"fp16": True, "precision": "fp32", "use_cpu": True}, "fp16 needs a GPU"),
        ({"save_total_limit": 1}, "save_total_limit is 1; it must be a whole number, at least 2"),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        LSRMTrainingArguments(output_dir=str(tmp_path), **wrong)


def test_a_copy_for_the_disk_has_no_token_and_no_place(tmp_path):
    arguments = LSRMTrainingArguments(
        output_dir=str(tmp_path / "run"), hub_token="hf_secret", objective="last_position"
    )
    kept = pickle.dumps(module.without_traces(arguments))
    assert b"hf_secret" not in kept
    assert str(tmp_path).encode() not in kept
    kept = pickle.loads(kept)
    assert (kept.output_dir, kept.objective, kept.hub_token) == ("run", "last_position", None)
    assert (arguments.output_dir, arguments.hub_token) == (str(tmp_path / "run"), "hf_secret")


@pytest.mark.parametrize(("precision", "fast", "bf16"), [
    ("auto", True, True), ("auto", False, False), ("bf16", False, True), ("fp32", True, False)
])  # fmt: skip
def test_precision_follows_the_hardware_only_if_asked(tmp_path, monkeypatch, precision, fast, bf16):
    monkeypatch.setattr(module, "bf16_is_fast", lambda: fast)
    assert LSRMTrainingArguments(output_dir=str(tmp_path), precision=precision).bf16 is bf16
