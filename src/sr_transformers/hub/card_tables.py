"""The tables of a model card, from records to text. Every number is a number of a record, or a sum of such numbers."""

from collections.abc import Iterable, Sequence
from typing import Any

from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.baskets import PARTS
from sr_transformers.evaluation.evaluator import against_mix
from sr_transformers.evaluation.protocol import protocol_line
from sr_transformers.fingerprints import refuse_mixed
from sr_transformers.records import RunRecord

Rows = list[tuple[str, str]]

# Keys of the training settings that move numbers, with the card's words for them.
TRAINING_KEYS = {
    "objective": "objective",
    "optim": "optimizer",
    "optimizer": "optimizer of the matrices of the blocks",
    "learning_rate": "learning rate",
    "table_lr_multiplier": "learning rate of the item table, times",
    "table_updates": "updates of the item table",
    "lr_scheduler_type": "schedule",
    "warmup_steps": "warm-up steps",
    "weight_decay": "weight decay",
    "decay_epochs": "weights decay within (epochs)",
    "max_grad_norm": "gradient norm clipped at",
    "per_device_train_batch_size": "rows per step and process",
    "gradient_accumulation_steps": "accumulated steps",
    "row_width": "positions per row",
    "shuffle_baskets": "baskets shuffled anew in every epoch",
    "num_negatives": "sampled negatives (0: full softmax)",
    "num_train_epochs": "epochs at most",
    "bf16": "bf16",
    "fp16": "fp16",
}
_ORDINARY = {"table_lr_multiplier": 1.0, "table_updates": "dense"}  # said only where it is otherwise
COUNTS = {
    "rows_read": "rows read",
    "rows_left_out_by_min_interactions": "left out by the k-core filter",
    "users": "users",
    "items": "items",
    "interactions": "interactions",
    "train_interactions": "training interactions",
    "items_in_vocabulary": "items in the vocabulary",
    "mean_length": "interactions per user, mean",
    "max_length": "interactions per user, largest",
    "repeat_share": "share of repeats",
    "tied_share": "share of equal timestamps within a user",
    "validation_targets": "validation targets",
    "test_targets": "test targets",
    "validation_targets_outside_vocabulary": "validation targets outside the vocabulary",
    "test_targets_outside_vocabulary": "test targets outside the vocabulary",
    "users_too_short_to_hold_out": "users too short to hold out",
}
SHOWN = (
    "hr@1",
    "hr@5",
    "hr@10",
    "hr@20",
    "hr@50",
    "ndcg@5",
    "ndcg@10",
    "ndcg@20",
    "ndcg@50",
    "mrr",
    "coverage@10",
    "loss",
    # Of whole next baskets.
    *(
        f"{part}{name}@{k}"
        for part in PARTS
        for k in (10, 20)
        for name in ("recall", "ndcg")
        if part or name == "recall"
    ),
)

HEADLINES = ("hr@10", "ndcg@10", "mrr", "coverage@10", "loss")  # those that stand in metadata


def display(metric: str) -> str:
    """A metric's name for readers.

    >>> display("hr@10"), display("ndcg@5"), display("mrr"), display("coverage@10"), display("loss")
    ('HR@10', 'NDCG@5', 'MRR', 'coverage@10', 'loss (nats)')
    """
    name, at, k = metric.partition("@")
    return {"loss": "loss (nats)"}.get(metric, (name.upper() if name in ("hr", "ndcg", "mrr") else name) + at + k)


def identifier(metric: str) -> str:
    """A metric's name in metadata: without the sign that YAML would quote.

    >>> identifier("hr@10")
    'hr_at_10'
    """
    return metric.replace("@", "_at_")


def number(value: Any) -> str:
    """A number for readers: integers whole with separators, others to four significant digits.

    >>> number(987531), number(165.49850993), number(14472673689600.0), number(0.004), number("linear")
    ('987,531', '165.5', '1.447e+13', '0.004', 'linear')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def size_rows(record: RunRecord) -> Rows:
    """The architecture in numbers."""
    model, parameters = record.recipe["model"], record.parameters
    return [
        (
            "layers × width, heads",
            f"{model['num_hidden_layers']} × {model['hidden_size']}, {model['num_attention_heads']}",
        ),
        ("window", f"{model['max_position_embeddings']} items"),
        (
            "items",
            f"{model.get('num_items') or model['vocab_size'] - NUM_SPECIAL:,} (and {NUM_SPECIAL} special tokens)",
        ),
        ("parameters in the matrices of the blocks (N)", f"{record.num_non_embedding_parameters:,}"),
        ("parameters in all", f"{sum(parameters.values()):,}"),
        ("of these item embeddings", f"{parameters['item_embedding']:,}"),
    ]


def count_rows(record: RunRecord) -> Rows:
    """Counts of the prepared log, and what the run had of it if that was only a part."""
    counts, part = record.data["counts"], record.data.get("fraction")
    rows = [(label, number(counts[key])) for key, label in COUNTS.items() if key in counts]
    if part and part["fraction"] != 1:
        what = {"users": "of the users", "interactions": "of every user's interactions", "context": "of the window"}
        rows.append(("trained on a part", f"{number(part['fraction'])} {what[part['of']]}"))
        rows.append(("training interactions of it (D)", f"{record.num_train_interactions:,}"))
    if part and "validation_targets" in part:
        rows.append(("validated on", f"{part['validation_targets']:,} of the validation targets, drawn at random"))
    return rows


def training_rows(record: RunRecord) -> Rows:
    """Recipe, cost and hardware; energy only if it was measured."""
    settings, model, hardware = record.recipe["training"], record.recipe["model"], record.hardware
    rows = [("recipe", record.name)]
    told = {key: settings[key] for key in TRAINING_KEYS if settings.get(key) not in (None, _ORDINARY.get(key))}
    rows += [(TRAINING_KEYS[key], number(value)) for key, value in told.items()]
    rows += [
        (f"{name.replace('_', ' ')}{' (bottom, top)' if isinstance(model[name], list) else ''}", _rates(model[name]))
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout")
        if name in model
    ]
    rows += [
        ("seed", str(record.seed)),
        ("steps, epochs", f"{record.steps:,}, {record.epochs:.4g}"),
        ("switch from Adam to SGD", "none" if record.switched_at is None else f"at step {record.switched_at:,}"),
        ("interactions seen (D × epochs)", f"{record.num_interactions_seen:,}"),
        ("training FLOPs, blocks (6 N per position)", number(float(record.training_flops))),
        ("training FLOPs, head (6 V d per target)", number(float(record.head_flops))),
        ("wall time", f"{number(record.seconds)} s, validation included"),
        ("hardware", _hardware(hardware)),
        ("peak memory", f"{number(record.peak_memory_bytes)} bytes"),
    ]
    if "energy_kwh" in hardware:
        rows.append(("energy", f"{number(hardware['energy_kwh'])} kWh"))
    return rows


def _rates(value: Any) -> str:
    return ", ".join(map(number, value)) if isinstance(value, list) else number(value)


def _hardware(hardware: dict[str, Any]) -> str:
    words = [str(hardware["device"]), f"{hardware['processes']} process(es)"]
    if hardware["device"] == "cpu":
        words += [f"{hardware['threads']} thread(s) of {hardware['cores']} cores", hardware["cpu_capability"]]
    return ", ".join([*words, hardware["machine"]])


def provenance_rows(record: RunRecord) -> Rows:
    """Where the model comes from."""
    source, origin = record.data["source"], record.recipe.get("origin")
    rows = [
        ("command", f"<code>{record.command}</code>"),
        ("commit", f"`{record.commit}`" if record.commit else "not recorded"),
        ("started", record.started),
        ("source file", source["name"] + (f", sha256 `{source['sha256']}`" if "sha256" in source else "")),
    ]
    if origin:
        rows.append(("started from", f"{origin['model']}, weights with sha256 `{origin['weights_sha256']}`"))
    return [*rows, ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items()))]


def results_table(reports: Sequence[dict[str, Any]]) -> str:
    """Reports of one protocol as Markdown, a column per scorer, under a line that states the protocol.

    Raises:
        ValueError: if they are of several protocols, naming what differs.
    """
    refuse_mixed((one["model"], one["protocol"]) for one in reports)
    metrics = [name for name in SHOWN if name in reports[0]["metrics"]]
    rows = [
        [display(name), *(f"{one['metrics'][name]:.4f}" if name in one["metrics"] else "–" for one in reports)]
        for name in metrics
    ]
    parts = [protocol_line(reports[0]) + ".", markdown(["metric", *(one["model"] for one in reports)], rows)]
    return "\n\n".join([*parts, *(against_mix(one) for one in reports if "against_mix" in one)])


def short_protocol(report: dict[str, Any]) -> str:
    """What must stand beside every single metric."""
    protocol = report["protocol"]
    return f"{protocol['ranking']} ranking, seen items {'removed' if protocol['filter_seen'] else 'kept'}"


def error_line(report: dict[str, Any]) -> str:
    """Standard errors of the headline metrics."""
    errors = report["standard_errors"]
    return ", ".join(f"{display(name)} {errors[name]:.4f}" for name in ("hr@10", "ndcg@10", "loss") if name in errors)


def metric_line(metrics: dict[str, float]) -> str:
    """Headline metrics in one line."""
    return ", ".join(f"{display(name)} {metrics[name]:.4f}" for name in ("hr@10", "ndcg@10", "loss") if name in metrics)


def sibling_table(records: Iterable[RunRecord]) -> str:
    """Test metrics of the same recipe and data with other seeds."""
    rows = [
        [str(one.seed), *(f"{one.reports[0]['metrics'][name]:.4f}" for name in ("hr@10", "ndcg@10", "loss"))]
        for one in records
    ]
    return markdown(["seed", *map(display, ("hr@10", "ndcg@10", "loss"))], rows) if rows else ""


def fit_table(fits: Sequence[dict[str, Any]]) -> str:
    """Fitted scaling laws: parameters with their intervals, and whether the fit is to be believed."""
    rows = []
    for fit in fits:
        intervals = fit.get("intervals") or {}
        for name, value in fit["params"].items():
            low_high = intervals.get(name)
            rows.append(
                [
                    fit["law"],
                    name,
                    number(float(value)),
                    f"{number(float(low_high[0]))} to {number(float(low_high[1]))}" if low_high else "none",
                    fit["status"],
                ]
            )
    return markdown(["law", "parameter", "value", "interval", "status of the fit"], rows) if rows else ""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
