"""The command line. Each command has a file of its own here and calls one function of the library.

Imports of the library stand inside the commands, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from sr_transformers import __version__
from sr_transformers.cli import (
    compare,
    data,
    demo,
    evaluate,
    export,
    failures,
    finetune,
    plan,
    prepare,
    publish,
    recipes,
    recommend,
    scaling,
    tasks,
    train,
    tune,
)
from sr_transformers.cli.parser import Parser

# In the order of --help: the way of a newcomer, then the rest.
COMMANDS = (
    *(prepare, train, evaluate, recommend, publish),
    *(tune, recipes, data, plan, compare, tasks, scaling, finetune, export, demo),
)
FIRST_STEPS = """from a log to recommendations:
  sr-transformers prepare events.csv --output prepared/events
  sr-transformers train sparse --data prepared/events --output runs/events
  sr-transformers evaluate --model runs/events --data prepared/events
  sr-transformers recommend --model runs/events --history sku-1 sku-7 -k 10
  sr-transformers publish runs/events ORG/NAME --dry-run

`sr-transformers COMMAND --help` tells what a command takes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code, and whatever ended the command is one line on stderr (`failures`)."""
    if not sys.stderr.isatty():  # bars of other libraries too are for terminals
        os.environ.setdefault("TQDM_DISABLE", "1")
    parser = build_parser()
    options, rest = parser.parse_known_args(argv)
    if rest and not getattr(options, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    for name, value in vars(options).items():
        if value == "":
            parser.error(f"{name.replace('_', '-')} is empty; give a value or leave it out")
    with failures.CtrlC(f"sr-transformers {options.command}: interrupted; {failures.go_on(options)}") as ctrl_c:
        try:
            options.run(options, rest)
            sys.stdout.flush()
        except KeyboardInterrupt:
            ctrl_c.pressed = True
        except Exception as error:
            if not ctrl_c.pressed:  # else it is what a library made of Ctrl-C
                return failures.tell(error, options)
        return ctrl_c.say() if ctrl_c.pressed else 0


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = Parser(
        prog="sr-transformers",
        description="Train, scale, publish and use ID-only sequential recommenders.",
        epilog=FIRST_STEPS,
    )
    parser.add_argument("--version", action="version", version=f"sr-transformers {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser
