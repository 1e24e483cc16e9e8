"""`sr-transformers finetune`: a checkpoint, trained on a log with another item vocabulary."""

import argparse

from sr_transformers.cli.train import GO_ON
from sr_transformers.cli.values import ATTENTION_HELP, at_least, plain_warnings


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser(
        "finetune",
        help="carry a checkpoint over to another log's items and train it there",
        epilog="Any key of the recipe's training section and its dropout rates are options too and win over the file: "
        "--learning_rate 5e-4 --seed 1",
    )
    one.add_argument("recipe", help="a YAML or a name, as for train, with the checkpoint's architecture")
    one.add_argument("--model", required=True, help="folder or Hub id of the checkpoint")
    one.add_argument("--revision", help="branch, tag or commit of the checkpoint on the Hub")
    one.add_argument("--data", required=True, help="prepared folder")
    one.add_argument("--output", required=True, help="folder of the run; an interrupted one goes on")
    one.add_argument("--init", default="nearest", choices=("nearest", "mean", "random"), help="rows of new items")
    one.add_argument("--old-items", default="drop", choices=("drop", "keep"), help="items that the log lacks")
    one.add_argument("--freeze", default="nothing", choices=("nothing", "body", "table"), help="what does not learn")
    one.add_argument(
        "--lora", type=at_least(0), default=0, metavar="RANK", help="low-rank adapters instead of all matrices"
    )
    one.add_argument("--attn", metavar="NAME", help=ATTENTION_HELP)
    one.set_defaults(run=_finetune, takes_overrides=True, go_on=GO_ON)


def _finetune(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.cli.train import overrides
    from sr_transformers.evaluation.evaluator import table
    from sr_transformers.evaluation.loading import Checkpoint
    from sr_transformers.finetuning.finetune import finetune
    from sr_transformers.training.recipe import Recipe
    from sr_transformers.training.train import leave_processes
    from sr_transformers.training.unread import refuse_unread

    given = overrides(rest)
    recipe = Recipe.load(options.recipe, given)
    refuse_unread(recipe, given)
    with plain_warnings(options.command):
        record = finetune(
            Checkpoint(options.model, revision=options.revision),
            options.data,
            recipe,
            options.output,
            init=options.init,
            old_items=options.old_items,
            freeze=options.freeze,
            lora_rank=options.lora,
            attn_implementation=options.attn,
        )
    items = record.recipe["origin"]["items"]
    print(f"items: {items['known']:,} known, {items['new']:,} new, {items['dropped']:,} dropped")
    if len(record.reports) > 1:  # the first process
        print(table(record.reports))
    leave_processes()
