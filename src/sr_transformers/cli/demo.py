"""`sr-transformers demo`: a page in the browser that shows what a checkpoint recommends."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("demo", help="a page that shows what a checkpoint recommends")
    one.add_argument("model", help="folder or Hub id")
    one.add_argument("--compare", metavar="MODEL", help="a second checkpoint, shown beside it")
    one.add_argument("--revision", help="branch, tag or commit of the checkpoint on the Hub")
    one.add_argument("--compare-revision", metavar="REVISION", help="the same of the second one")
    one.add_argument("--titles", metavar="FILE", help="csv, tsv or parquet with the columns item_id and title")
    one.add_argument("--study", metavar="FOLDER", help="show the figures of this folder")
    one.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    one.add_argument("--port", type=int, default=7860)
    one.add_argument("--space", metavar="FOLDER", help="start nothing: write the demo as a Hugging Face Space here")
    one.set_defaults(run=_demo)


def _demo(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.demo.app import build_app
    from sr_transformers.demo.space import write_space

    revisions = {"revision": options.revision, "compare_revision": options.compare_revision}
    if options.compare_revision and not options.compare:
        raise ValueError("--compare-revision is the revision of a second checkpoint; add --compare.")
    if options.space:
        print(write_space(options.model, options.space, options.compare, options.titles, options.study, **revisions))
        return
    app = build_app(options.model, options.compare, options.titles, options.study, **revisions)
    allowed = [options.study] if options.study else []
    app.launch(server_name=options.host, server_port=options.port, allowed_paths=allowed)
