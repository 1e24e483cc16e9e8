"""Run records and study folders made from a known law: what an analysis must find is known."""

import json

import numpy as np

from sr_transformers.records import RunRecord
from sr_transformers.scaling.laws.forms import LAWS

TRUTH = {"E": 4.5, "A": 6.0, "B": 150.0, "alpha": 0.25, "beta": 0.5}
SHAPES = {"3k": (1, 16), "12k": (1, 32), "49k": (1, 64), "98k": (2, 64), "197k": (4, 64), "786k": (4, 128)}
SHAPES |= {"1.5m": (8, 128), "3.1m": (10, 160), "98k-deep": (8, 32)}
USERS, INTERACTIONS = 5000, 400_000


def curve(*losses):
    """Evaluations of a run of 100 steps that ends with these losses, the rest of the way far above."""
    late = [{"step": 100 - 5 * back, "eval_loss": loss} for back, loss in enumerate(reversed(losses))]
    return [{"step": 20, "eval_loss": losses[0] + 1.0}, {"step": 60, "eval_loss": losses[0]}, *reversed(late)]


def record(size, fraction=1.0, epochs=3.0, seed=1, extra=0.0, law="joint", **changes):
    """A run record whose loss is that of a law of size and data, with 0.1 % noise."""
    layers, width = SHAPES[size]
    n, d = 12 * layers * width**2, round(INTERACTIONS * fraction)
    loss = LAWS[law].predict(TRUTH, {"N": np.array([n]), "D": np.array([d])})[0]
    loss *= np.exp(0.001 * np.random.default_rng([n, d, seed]).standard_normal())
    loss += extra
    ndcg = 0.9 - 0.13 * loss
    protocol = {"data": "shop.csv", "filter_seen": True}
    values = {
        "name": size,
        "command": "x",
        "started": "2026-01-02T03:04:05+00:00",
        "seed": seed,
        "data": {
            "source": {"name": "shop.csv"},
            "split": "leave_one_out",
            "counts": {"users": USERS, "items_in_vocabulary": 1000, "train_interactions": INTERACTIONS},
            "fraction": {"of": "users", "fraction": fraction},
        },
        "recipe": {
            "model": {"vocab_size": 1002, "hidden_size": width, "num_hidden_layers": layers},
            "training": {"learning_rate": 0.01, "seed": seed, "num_train_epochs": epochs},
        },
        "versions": {},
        "commit": None,
        "hardware": {"device": "cpu", "threads": 1},
        "num_non_embedding_parameters": n,
        "parameters": {"blocks": n, "item_embedding": 1002 * width},
        "num_train_interactions": d,
        "num_interactions_seen": round(d * epochs),
        "training_flops": 6.0 * n * d * epochs,
        "head_flops": 6.0 * 1002 * width * d * epochs,
        "steps": 100,
        "epochs": epochs,
        "best_step": 100,
        "switched_at": None,
        "seconds": 60.0,
        "peak_memory_bytes": 1,
        "history": [{"loss": 1.0, "step": 1}, *curve(loss)],
        "validation": {"loss": loss},
        "reports": [
            {"model": size, "protocol": protocol, "metrics": {"loss": loss, "ndcg@10": ndcg, "hr@10": 1.9 * ndcg}}
        ],
    }
    return RunRecord(**{**values, **changes})


def add_run(
    folder,
    size,
    fraction=1.0,
    epochs=3.0,
    seed=1,
    block="main",
    settings=None,
    in_law=True,
    extra=0.0,
    own_epochs=False,
    law="joint",
):
    """Adds a finished run to a study folder."""
    name = f"{size}-users{fraction:g}-e{epochs:g}-{block}-s{seed}"
    (folder / "runs" / name).mkdir(parents=True)
    made = record(size, fraction, epochs, seed, extra, law)
    for key, value in (settings or {}).items():
        made.recipe["model" if key.endswith("dropout") else "training"][key] = value
    made.save(folder / "runs" / name)
    path = folder / "plan.json"
    plan = (
        json.loads(path.read_text())
        if path.exists()
        else {"runs": {}, "tuning": {"dropouts": {"3072": 0.1}, "at_edge": {}}, "left_out": []}
    )
    layers, width = SHAPES[size]
    plan["runs"][name] = {
        "block": block,
        "size": size,
        "layers": layers,
        "width": width,
        "of": "users",
        "fraction": fraction,
        "epochs": epochs,
        "own_epochs": own_epochs,
        "seed": seed,
        "settings": settings or {},
        "in_law": in_law,
    }
    path.write_text(json.dumps(plan))
