"""The parser of all commands: an option has its whole name, and stands once.

argparse would take the last of two values and the beginning of a name, both without a word. Options that may be given
several times say so with an action of their own (`append`, `RevisionOfModel`).
"""

import argparse
from typing import Any


class Help(argparse.RawDescriptionHelpFormatter):
    """Says of every option with a value which it has if it is left out."""

    def _get_help_string(self, action: argparse.Action) -> str:
        said, value = action.help or "", action.default
        silent = value is None or isinstance(value, bool) or value in ([], argparse.SUPPRESS)
        if silent or not action.option_strings or action.nargs == 0 or "default" in said or "left out" in said:
            return said
        return f"{said} ({f'{value:g}' if isinstance(value, float) else value} if left out)"


class Parser(argparse.ArgumentParser):
    """Refuses an option that is given twice. The namespace has in `given` the options that were given with a value, for
    those that something else must read; a default is not given."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": Help, **kwargs})
        for name in (None, "store"):
            self.register("action", name, _Once)
        self.set_defaults(given=frozenset())


class _Once(argparse._StoreAction):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if option is not None:
            if self.dest in namespace.given:
                parser.error(f"{option} is given twice; keep one.")
            namespace.given |= {self.dest}
        super().__call__(parser, namespace, values, option)
