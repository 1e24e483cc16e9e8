"""`sr-transformers plan`: memory, FLOPs, time and parallelism of a training run, on paper."""

import argparse

from sr_transformers.cli.values import at_least


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("plan", help="memory, FLOPs and time of a training run before it is started")
    one.add_argument("--size", required=True, help="98k, 786k, 1.5m, 9m, 75m or 800m")
    one.add_argument("--items", type=at_least(1), required=True, metavar="V", help="items of the vocabulary")
    one.add_argument("--gpus", metavar="NxGPU", help="for example 8xA100-80GB; without it: a CPU, and no time")
    one.add_argument("--window", type=at_least(1), default=50, help="items that the model reads")
    one.add_argument("--row-width", type=at_least(1), help="places in a row; the window if left out")
    one.add_argument("--rows", type=at_least(1), default=64, help="rows per device and micro-batch")
    one.add_argument("--targets", type=at_least(1), help="targets of one epoch: interactions less users")
    one.add_argument("--epochs", type=float, default=1.0, help="epochs that the time is for")
    one.add_argument("--precision", choices=("bf16", "fp32"), help="bf16 where the GPU has it, else fp32")
    one.add_argument(
        "--optimizer", choices=("adam", "sgd", "muon"), default="adam", help="of the training's first phase"
    )
    one.add_argument(
        "--num-negatives", type=at_least(0), default=0, metavar="S", help="sampled softmax; 0: the full one"
    )
    one.add_argument(
        "--table-updates",
        choices=("dense", "lazy_adam", "row_adagrad"),
        default="dense",
        help="how the item table learns; other than dense only the rows that a step reads, with sampled softmax",
    )
    one.add_argument("--history", nargs="+", default=[], metavar="PART", help="parts of the model's history")
    one.add_argument("--num-successors", type=at_least(1), default=512, metavar="K", help="with mix")
    one.add_argument("--attention", choices=("sdpa", "flash"), default="sdpa", help="flash: kernels of variable length")
    one.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    one.add_argument("--accumulating", action="store_true", help="several micro-batches make a step")
    one.add_argument("--utilisation", type=float, default=0.4, help="fraction of the GPU's dense peak that is reached")
    one.add_argument(
        "--bandwidth", type=float, metavar="GB/s", help="what a GPU sends to others; without it: sending takes no time"
    )
    one.add_argument("--json", metavar="FILE", help="write the plan here too")
    one.set_defaults(run=_plan)


def _plan(options: argparse.Namespace, rest: list[str]) -> None:
    from huggingface_hub.errors import StrictDataclassError

    from sr_transformers.cli.documents import check_place, write_document
    from sr_transformers.evaluation.weights import in_words
    from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
    from sr_transformers.planning.gpus import parse_gpus
    from sr_transformers.planning.memory import Work
    from sr_transformers.planning.nearest import what_would_fit
    from sr_transformers.planning.plan import make_plan
    from sr_transformers.planning.text import show

    if "num_successors" in options.given and "mix" not in options.history:
        raise ValueError("--num-successors is of the part mix; add it to --history, or leave this out.")
    check_place(options.json)
    number, gpu = parse_gpus(options.gpus) if options.gpus else (1, None)
    width = options.row_width or options.window
    if width < options.window:
        raise ValueError(f"--row-width {width} cannot hold windows of {options.window}; it must be at least as wide.")
    special_tokens = 2  # padding and unknown
    try:
        config = LSRMConfig.from_size(
            options.size,
            vocab_size=options.items + special_tokens,
            max_position_embeddings=options.window,
            history=options.history,
            num_successors=options.num_successors,
        )
    except StrictDataclassError as error:
        raise ValueError(f"--items, --window and --history make no model: {in_words(error)}") from error
    work = Work(
        rows=options.rows,
        width=width,
        precision=options.precision or ("bf16" if gpu and gpu.bf16 else "fp32"),
        optimizer=options.optimizer,
        attention=options.attention,
        device="cuda" if gpu else "cpu",
        checkpointing=options.checkpointing,
        accumulating=options.accumulating,
        num_negatives=options.num_negatives,
        table_updates=options.table_updates,
    )
    bandwidth = None if options.bandwidth is None else options.bandwidth * 1e9
    plan = make_plan(config, work, gpu, number, options.utilisation, options.targets, options.epochs, bandwidth)
    if gpu is not None and plan["best"] is None:
        plan["instead"] = what_would_fit(
            config, work, gpu, number, options.utilisation, bandwidth, options.targets, options.epochs
        )
    write_document(options.json, plan)
    print(show(plan))
