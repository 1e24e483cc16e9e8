"""The runs of studies as one table that anyone can fit: a row per run, units in the Parquet file's metadata."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sr_transformers.scaling.laws.records_table import seen_up_to_kept
from sr_transformers.scaling.studies.analysis import METRICS, StudyRun

# Name, type, unit or meaning.
COLUMNS = (
    ("study", pa.string(), "name of the study"),
    ("run", pa.string(), "name of the run within its study"),
    ("block", pa.string(), "block of the study file"),
    ("in_law", pa.bool_(), "whether the run is a point of the study's laws"),
    ("N", pa.int64(), "parameters in the matrices of the blocks"),
    ("N_with_table", pa.int64(), "N and the parameters of the item table"),
    ("layers", pa.int64(), "blocks"),
    ("width", pa.int64(), "width of the residual stream"),
    ("D", pa.int64(), "distinct training interactions"),
    ("D_kept", pa.float64(), "interactions up to the weights that were kept, repeats included"),
    ("unique", pa.float64(), "distinct ones among D_kept"),
    ("seen", pa.int64(), "targets trained on, repeats included"),
    ("fraction", pa.float64(), "part of the data in (0, 1]"),
    ("of", pa.string(), "what the fraction is taken of: users, interactions, context"),
    ("epochs", pa.float64(), "passes over the data"),
    ("own_epochs", pa.bool_(), "whether the size trains for its own number of epochs, until it converges"),
    ("best_epoch", pa.float64(), "passes up to the weights that were kept"),
    ("seed", pa.int64(), "of everything random"),
    ("learning_rate", pa.float64(), "peak, per step"),
    ("residual_dropout", pa.string(), "JSON: a rate, or rates from the bottom to the top"),
    ("embedding_dropout", pa.float64(), "rate"),
    ("validation_loss", pa.float64(), "nats per target, of the kept weights"),
    ("loss", pa.float64(), "nats per test target"),
    *((name, pa.float64(), "fraction, test targets, full ranking") for name in METRICS),
    ("block_flops", pa.float64(), "FLOPs of training the blocks: 6 N per position, epochs included"),
    ("head_flops", pa.float64(), "FLOPs of training the head: 6 V d per target, epochs included"),
    ("seconds", pa.float64(), "wall time of training"),
    ("command", pa.string(), "how the run was started"),
    ("commit", pa.string(), "of the sources that ran"),
)


def table_of(study: str, runs: Sequence[StudyRun]) -> pa.Table:
    """The rows of a study, with `COLUMNS` and their units."""
    rows = [_row(study, run) for run in runs]
    schema = pa.schema([pa.field(name, kind, metadata={"unit": unit}) for name, kind, unit in COLUMNS])
    return pa.Table.from_pylist(rows, schema=schema)


def write_points(table: pa.Table, path: str | Path) -> None:
    """Writes the table as Parquet."""
    pq.write_table(table, path, compression="zstd")


def _row(study: str, run: StudyRun) -> dict[str, object]:
    record, plan = run.record, run.plan
    kept = seen_up_to_kept(record)
    model, training = record.recipe["model"], record.recipe["training"]
    return {
        "study": study,
        "run": run.name,
        "block": plan["block"],
        "in_law": plan["in_law"],
        "N": record.num_non_embedding_parameters,
        "N_with_table": run.size_with_table,
        "layers": plan["layers"],
        "width": plan["width"],
        "D": record.num_train_interactions,
        "D_kept": kept,
        "unique": min(kept, float(record.num_train_interactions)),
        "seen": record.num_interactions_seen,
        "fraction": plan["fraction"],
        "of": plan["of"],
        "epochs": record.epochs,
        "own_epochs": plan["own_epochs"],
        "best_epoch": record.epochs * (record.best_step or record.steps) / record.steps,
        "seed": plan["seed"],
        "learning_rate": training["learning_rate"],
        "residual_dropout": json.dumps(model.get("residual_dropout")),
        "embedding_dropout": model.get("embedding_dropout"),
        "validation_loss": record.validation.get("loss"),
        "loss": run.loss,
        **{name: run.metric(name) for name in METRICS},
        "block_flops": record.training_flops,
        "head_flops": record.head_flops,
        "seconds": record.seconds,
        "command": record.command,
        "commit": record.commit,
    }
