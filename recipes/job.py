# /// script
# requires-python = ">=3.11"
# dependencies = ["sr-transformers[figures]"]
# ///
"""One file from a log to a model on the Hub, for `uv run` and for jobs of the Hub: it names what it needs by itself.

    uv run recipes/job.py events.parquet ORG/NAME
    hf jobs uv run --flavor l4x1 --secrets HF_TOKEN recipes/job.py hf://datasets/ORG/LOG ORG/NAME

The log is what `sr-transformers prepare` takes, the size one of 98k, 786k, 1.5m, 9m, 75m and 800m. Further options are
keys of a recipe: `--max_position_embeddings 100 --num_train_epochs 5 --report_to trackio --trackio_space_id ORG/NAME`.
"""

import argparse
from pathlib import Path

from sr_transformers import Recipe, prepare, train
from sr_transformers.cli.train import overrides
from sr_transformers.evaluation.evaluator import table
from sr_transformers.lsrm.configuration_lsrm import LSRM_SIZES
from sr_transformers.training.progress import bars_on_terminals_only


def main(words: list[str] | None = None) -> None:
    """Prepares the log, trains, evaluates and publishes."""
    bars_on_terminals_only()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", help="a file, folder, name or address of a log")
    parser.add_argument("repo", help="name of the model on the Hub, ORG/NAME")
    parser.add_argument("--size", choices=tuple(LSRM_SIZES), default="98k", help="size of the model")
    parser.add_argument("--columns", nargs="+", default=[], metavar="OURS=THEIRS", help="for example item_id=sku")
    parser.add_argument("--work", type=Path, default=Path("job"), help="folder for the prepared log and the run")
    options, further = parser.parse_known_args(words)
    data = prepare(options.log, options.work / "data", dict(one.split("=", 1) for one in options.columns))
    layers, width, heads = LSRM_SIZES[options.size]
    shape = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    recipe = Recipe(options.size, shape, {"push_to_hub": True, "hub_model_id": options.repo})
    for key, value in overrides(further).items():
        recipe.set(key, value)
    print(table(train(recipe, data, options.work / "run").reports))


if __name__ == "__main__":
    main()
