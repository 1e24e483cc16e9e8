"""`sr-transformers recommend`: next items for a history."""

import argparse

from sr_transformers.cli.values import SEEN, at_least


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("recommend", help="next items for a history of raw item ids")
    one.add_argument("--model", required=True, help="folder or Hub id")
    one.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    one.add_argument("--history", nargs="+", required=True, metavar="ITEM", help="item ids, oldest first")
    one.add_argument("--times", nargs="+", type=int, metavar="TIME",
                     help="moments of these items in the log's unit, for a model that reads them")  # fmt: skip
    one.add_argument("-k", type=at_least(1), default=10)
    one.add_argument("--seen", choices=tuple(SEEN), default="auto",
                     help="items of the history itself; auto does as the model's evaluation did")  # fmt: skip
    one.add_argument("--candidates", nargs="+", metavar="ITEM", help="recommend only from these")
    one.add_argument("--fallback", default="error", choices=("error", "popularity"), help="if no item is known")
    one.set_defaults(run=_recommend)


def _recommend(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.messages import shown
    from sr_transformers.recommender import Recommender

    recommender = Recommender.from_pretrained(options.model, revision=options.revision)
    if options.fallback == "error" and not len(recommender.encode(options.history)):
        raise ValueError(
            f"--history: the model knows no item of {shown(options.history)}; give ids as they were in the log, or "
            "--fallback popularity for the most popular items."
        )
    exclude_seen = SEEN[options.seen]
    found = recommender.recommend(
        options.history, options.k, exclude_seen, options.candidates, options.fallback, options.times
    )
    for place, one in enumerate(found, 1):
        print(f"{place:3}  {one.item}  {one.probability:.4f}")
