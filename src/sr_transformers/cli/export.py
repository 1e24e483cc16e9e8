"""`sr-transformers export`: a checkpoint as an ONNX graph."""

import argparse

from sr_transformers.cli.values import at_least


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("export", help="write a checkpoint as an ONNX graph with top-k inside")
    one.add_argument("--model", required=True, help="folder or Hub id")
    one.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    one.add_argument("--output", required=True, help="folder to make")
    one.add_argument("-k", type=at_least(1), default=100, help="items that the graph returns")
    one.add_argument("--weights", default="float32", choices=("float32", "int8", "int4"), help="numbers of the weights")
    one.set_defaults(run=_export)


def _export(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.evaluation.loading import Checkpoint
    from sr_transformers.serving.onnx import export_onnx

    path = export_onnx(Checkpoint(options.model, revision=options.revision), options.output, options.k, options.weights)
    size = sum(file.stat().st_size for file in path.parent.glob("model.onnx*"))
    print(f"{path}: {size:,} bytes, {options.weights}, the best {options.k} items of each history")
