"""`--revision` where `--model` may be given several times: each belongs to the model before it."""

import argparse
from typing import Any


class RevisionOfModel(argparse.Action):
    """Keeps revisions by the place of their model; one that stands before any model, or beside another, is refused."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        place, known = len(namespace.model) - 1, dict(namespace.revision or {})
        if place < 0:
            parser.error(f"--revision {values} stands before any --model; write it behind the one that it belongs to.")
        if place in known:
            parser.error(
                f"--revision {values}: --model {namespace.model[place]} has the revision {known[place]} already."
            )
        namespace.revision = {**known, place: values}


def revision_of(options: argparse.Namespace, place: int) -> str | None:
    """Of the model at this place among those given; None without one."""
    return (options.revision or {}).get(place)
