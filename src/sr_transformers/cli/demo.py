"""`sr-transformers demo`: a page in the browser that shows what a checkpoint recommends."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("demo", help="a page that shows what a checkpoint recommends")
    one.add_argument("model", help="folder or Hub id")
    one.add_argument("--compare", metavar="MODEL", help="a second checkpoint, shown beside it")
    one.add_argument("--revision", help="branch, tag or commit of the checkpoint on the Hub")
    one.add_argument("--compare-revision", metavar="REVISION", help="the same of the second one")
    one.add_argument("--data", metavar="FOLDER", help="prepared log: open with one of its held-out users and mark what "
                     "came next; without it, with a history that the model generates")  # fmt: skip
    one.add_argument("--titles", metavar="FILE", help="csv, tsv or parquet with the columns item_id, title and, if it "
                     "has departments or genres, domain")  # fmt: skip
    one.add_argument("--study", metavar="FOLDER", help="show the figures of this folder")
    one.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    one.add_argument("--port", type=int, default=7860, help="of the page")
    one.add_argument("--space", metavar="FOLDER", help="start nothing: write the demo as a Hugging Face Space here")
    one.set_defaults(run=_demo, go_on="the page is closed; the same command opens it again.")


def _demo(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.demo.app import build_app, serve
    from sr_transformers.demo.space import write_space

    revisions = {"revision": options.revision, "compare_revision": options.compare_revision}
    if options.compare_revision and not options.compare:
        raise ValueError("--compare-revision is the revision of a second checkpoint; add --compare.")
    if options.space and (served := options.given & {"host", "port"}):
        raise ValueError(
            f"--{min(served)} says where a page is served, and --space starts none; leave one of the two out."
        )
    if options.space and options.data:
        raise ValueError(
            "--data shows histories of users, and a Space is for others to see; leave --data out, and the Space opens "
            "with a history that the model generates."
        )
    if options.space:
        print(write_space(options.model, options.space, options.compare, options.titles, options.study, **revisions))
        return
    _check_address(options.host, options.port)
    app = build_app(options.model, options.compare, options.titles, options.study, **revisions, data=options.data)
    serve(app, options.study, server_name=options.host, server_port=options.port)


def _check_address(host: str, port: int) -> None:
    """Makes sure, before the model is loaded, that a page can be served there.

    Raises:
        ValueError: for a port that is none.
        OSError: for a host that is not this machine, or a port that is taken or not allowed.
    """
    import socket

    if not 1 <= port <= 65535:
        raise ValueError(f"--port {port}: ports are numbers from 1 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise OSError(
            f"--host {host} --port {port}: {why}; the host must be an address of this machine, the port free."
        ) from error
