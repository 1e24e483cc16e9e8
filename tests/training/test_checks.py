import copy
import dataclasses
import math
import typing

import pytest
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from sr_transformers import LSRMTrainingArguments
from sr_transformers.training.checks import CHOICES, HONOURED, OPTIM_ARGS, RANGES, REFUSED

THEIRS = {one.name: one for one in dataclasses.fields(TrainingArguments) if one.init}
ALL = {one.name: one for one in dataclasses.fields(LSRMTrainingArguments) if one.init}
OURS = set(ALL) - set(THEIRS)
# A value that is not the default, where it does not follow from the type.
OTHER = {
    "hub_strategy": "every_save",
    "include_for_metrics": ["inputs"],
    "liger_kernel_config": {"rope": True},
    "label_names": ["labels"],
    "accelerator_config": {"split_batches": True},
    "parallelism_config": object(),
    "train_sampling_strategy": "group_by_length",
    "length_column_name": "size",
    "label_smoothing_factor": 0.1,
    "neftune_noise_alpha": 5.0,
    "dataloader_multiprocessing_context": "spawn",
    "resume_from_checkpoint": "nope",
}


def arguments(tmp_path, **values):
    return LSRMTrainingArguments(**{"output_dir": str(tmp_path), "precision": "fp32", **values})


def another(field):
    if field.name in OTHER:
        return OTHER[field.name]
    if isinstance(field.default, bool):
        return not field.default
    assert field.default is None or isinstance(field.default, int), field.name
    return 7


def is_number(hint):
    return bool({int, float} & {hint, *typing.get_args(hint)})


def test_every_argument_of_transformers_is_honoured_or_refused():
    """Fails for an argument that a new version of transformers brings: read what it does, then list it."""
    assert set(THEIRS) == HONOURED | set(REFUSED)
    assert not HONOURED & set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_honoured_is_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=rf"^{name} is .*, which is not supported: .{{15,}}\.$"):
        arguments(tmp_path, **{name: another(ALL[name])})


def test_every_number_has_a_range():
    numbers = {name for name, field in ALL.items() if is_number(field.type) and name not in REFUSED}
    assert numbers == set(RANGES)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -3, "3", True])
@pytest.mark.parametrize("name", RANGES)
def test_no_number_is_nan_infinite_negative_or_no_number(tmp_path, name, value):
    with pytest.raises(ValueError, match=rf"^{name} is {value!r}; it must be a"):
        arguments(tmp_path, **{name: value})


ZERO_MEANS_SOMETHING = {
    "seed", "data_seed", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "max_grad_norm", "eval_delay",
    "dataloader_num_workers", "num_negatives", "negative_power", "sgd_momentum",
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_zero_is_refused_where_it_means_nothing(tmp_path, name):
    if name in ZERO_MEANS_SOMETHING:
        assert getattr(arguments(tmp_path, **{name: 0}), name) == 0
        return
    with pytest.raises(ValueError, match=rf"^{name} is 0; it must be a"):
        arguments(tmp_path, **{name: 0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adam_beta1", 1.0),
        ("sgd_momentum", 1),
        ("negative_power", 1.01),
        ("seed", 2**32),
        ("per_device_train_batch_size", 8.0),
        ("max_steps", 2.5),
        ("logging_steps", 2.5),
        ("dataloader_num_workers", 10**6),
        ("save_total_limit", 1),
    ],
)
def test_the_other_end_of_ranges(tmp_path, name, value):
    with pytest.raises(ValueError, match=rf"^{name} is {value!r}; it must be a"):
        arguments(tmp_path, **{name: value})


def test_none_is_left_to_those_that_have_it(tmp_path):
    assert arguments(tmp_path, save_total_limit=None).save_total_limit is None
    with pytest.raises(ValueError, match=r"^learning_rate is None; it must be a number above 0\."):
        arguments(tmp_path, learning_rate=None)


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_listed(tmp_path, name):
    with pytest.raises(ValueError, match=rf"^{name} is 'sesame'; choose from "):
        arguments(tmp_path, **{name: "sesame"})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"save_strategy": "steps"}, "save_strategy is 'steps' and eval_strategy 'epoch'"),
        ({"save_strategy": "no"}, "save_strategy is 'no', but SGD begins with the weights that validated best"),
        (
            {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 10, "eval_steps": 5},
            "save_steps is 10 and eval_steps 5: .* both must be the same",
        ),
    ],
)
def test_checkpoints_are_those_that_validate(tmp_path, values, says):
    with pytest.raises(ValueError, match=says):
        arguments(tmp_path, load_best_model_at_end=False, **values)


@pytest.mark.parametrize(
    "values",
    [
        {"save_strategy": "best"},
        {"save_strategy": "no", "switch_optimizer": False, "load_best_model_at_end": False},
        {"save_strategy": "steps", "eval_strategy": "no", "load_best_model_at_end": False},
    ],
)
def test_other_moments_may_go_without(tmp_path, values):
    assert arguments(tmp_path, **values)


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize(("metric", "mode"), [("ndcg@10", "max"), ("loss", "min")])
def test_a_schedule_follows_the_metric_the_right_way(tmp_path, schedule, metric, mode):
    given = {"lr_scheduler_type": schedule, "metric_for_best_model": metric, "warmup_steps": 0}
    found = arguments(tmp_path, lr_scheduler_kwargs={"patience": 3}, **given)
    assert found.lr_scheduler_kwargs == {"patience": 3, "mode": mode}
    other = {"max": "min", "min": "max"}[mode]
    with pytest.raises(ValueError, match=f"mode is '{other}', but {metric} is better the"):
        arguments(tmp_path, lr_scheduler_kwargs={"mode": other}, **given)


@pytest.mark.parametrize(
    "values",
    [
        {"run_name": "x"},
        {"project": "x"},
        {"trackio_space_id": "x"},
        {"trackio_bucket_id": "x", "report_to": "tensorboard"},
        {"trackio_static_space_id": "x"},
        {"lr_scheduler_kwargs": {"sesame": 1}},
        {"optim_args": "momentum=0.9"},
        {"optim_target_modules": "all-linear", "optim": "sgd"},
        {"activation_checkpointing_kwargs": {"every_n_layers": 2}},
        {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"fsdp_config": {"min_num_params": 3}},
        {"dataloader_persistent_workers": True},
        {"dataloader_prefetch_factor": 4},
        {"do_eval": True, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False},
        {"hub_revision": "v1"},
        {"hub_private_repo": True},
    ],
    ids=lambda values: next(iter(values)),
)
def test_what_refines_something_that_is_off_is_refused(tmp_path, values):
    with pytest.raises(ValueError, match=rf"^{next(iter(values))} is .*, but nothing reads it: it needs "):
        arguments(tmp_path, **values)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            "momentun=0.9",
            "'momentun=0.9' is none of KEY=VALUE that it reads; sgd takes momentum, dampening, weight_decay",
        ),
        ("momentum=0.9,nesterov", "'nesterov' is none of KEY=VALUE"),
        ("momentum=high", "momentum must be a number, and 'high' is none"),
        ("momentum=inf", "momentum must be a number, and 'inf' is none"),
        ("momentum=0.9, nesterov=perhaps", "nesterov must be true or false"),
    ],
)
def test_settings_of_an_optimizer_that_it_does_not_read_are_refused(tmp_path, given, says):
    with pytest.raises(ValueError, match=rf"^optim_args is .*{says}"):
        arguments(tmp_path, optim="sgd", optim_args=given)


@pytest.mark.parametrize("name", OPTIM_ARGS)
def test_settings_of_an_optimizer_are_what_transformers_reads(tmp_path, name):
    given = ", ".join(f"{key}={'true' if key in ('nesterov', 'centered') else 0.5}" for key in OPTIM_ARGS[name])
    _, read = Trainer.get_optimizer_cls_and_kwargs(arguments(tmp_path, optim=name, optim_args=given))
    assert set(OPTIM_ARGS[name]) == set(read) - {"lr"}


@pytest.mark.parametrize(
    ("schedule", "given", "says"),
    [
        ("cosine", {"num_cycle": 3}, "unexpected keyword argument 'num_cycle'. It takes num_cycles."),
        ("warmup_stable_decay", None, "missing .* 'num_decay_steps'. It takes num_decay_steps, "),
        ("polynomial", {"lr_end": 1.0}, "must be smaller than initial lr"),
        ("reduce_lr_on_plateau", {"patient": 1}, "unexpected keyword argument 'patient'.$"),
    ],
)
def test_settings_of_a_schedule_are_looked_at_before_training(tmp_path, schedule, given, says):
    with pytest.raises(ValueError, match=rf"^lr_scheduler_kwargs is .* makes no schedule {schedule}: .*{says}"):
        arguments(tmp_path, lr_scheduler_type=schedule, lr_scheduler_kwargs=given)
    text = '{"num_decay_steps": 10}'  # as on the command line of transformers
    assert arguments(tmp_path, lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=text).lr_scheduler_kwargs


def test_refinements_of_what_is_on_and_empty_ones_are_taken(tmp_path):
    assert arguments(tmp_path, lr_scheduler_type="constant", lr_scheduler_kwargs={}).lr_scheduler_kwargs == {}
    assert arguments(tmp_path, optim="sgd", optim_args="momentum=0.9").optim == OptimizerNames.SGD
    assert arguments(tmp_path, dataloader_num_workers=1, dataloader_prefetch_factor=4).dataloader_prefetch_factor == 4
    assert arguments(tmp_path, hub_model_id="org/name", hub_revision="v1").hub_revision == "v1"


def test_copies_of_arguments_are_taken(tmp_path):
    """What transformers made of the defaults is no choice of the user's."""
    first = arguments(tmp_path, seed=3)
    values = {name: copy.copy(getattr(first, name)) for name in ALL}
    assert LSRMTrainingArguments(**values).seed == 3
    assert dataclasses.replace(first, seed=4).seed == 4
