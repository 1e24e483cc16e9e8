"""`sr-transformers publish`: a finished run as a repository on the Hub."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command and its options."""
    one = commands.add_parser("publish", help="publish a finished run on the Hub: weights, vocabulary, code, card")
    one.add_argument("folder", metavar="RUN_DIR", help="output folder of a finished run")
    add_repository(one)
    one.add_argument("--license", default="apache-2.0", help="of the weights; other needs --license-name")
    one.add_argument("--dry-run", action="store_true", help="write the exact folder instead of sending it")
    one.add_argument("--output", metavar="FOLDER", help="folder of the dry run; default is RUN_DIR-hub")
    one.add_argument("--scaling", metavar="STUDY", help="publish this scaling study as a data set and link it")
    one.add_argument("--scaling-repo", metavar="org/name", help="its name; default is the folder's, same namespace")
    one.add_argument("--dataset", metavar="ID", help="id of the training data on the Hub")
    one.add_argument("--base-model", metavar="ID", help="id of the model that this one was fine-tuned from")
    one.add_argument("--max-shard-size", default="5GB", help="larger models are cut into several files")
    one.set_defaults(run=_publish)


def add_repository(one: argparse.ArgumentParser) -> None:
    """Declares what every repository on the Hub has: its name, who may see it, its branch, a license of its own."""
    one.add_argument("repo", metavar="org/name", help="name on the Hub")
    one.add_argument("--license-name", help="of a license that the Hub does not list")
    one.add_argument("--license-link", metavar="URL", help="where its text is")
    one.add_argument("--private", action="store_true", help="make the repository private if it is new")
    one.add_argument("--branch", default="main", help="branch to publish on; made if it does not exist")
    one.set_defaults(go_on="what is on the Hub already stays there; the same command sends what is missing.")


def _publish(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.hub.model_card import CardOptions
    from sr_transformers.hub.publish import publish

    if options.output and not options.dry_run:
        raise ValueError("--output is the folder of a dry run; add --dry-run.")
    if options.scaling_repo and not options.scaling:
        raise ValueError("--scaling-repo is the name of a study on the Hub; add --scaling STUDY.")
    card = CardOptions(
        license=options.license,
        license_name=options.license_name,
        license_link=options.license_link,
        dataset=options.dataset,
        base_model=options.base_model,
    )
    dry_run = (options.output or f"{options.folder.rstrip('/')}-hub") if options.dry_run else None
    where = publish(
        options.folder,
        options.repo,
        card,
        private=options.private,
        branch=options.branch,
        scaling=options.scaling,
        scaling_repo=options.scaling_repo,
        max_shard_size=options.max_shard_size,
        dry_run=dry_run,
    )
    print(f"nothing was sent; {where} holds what would be" if dry_run else where)
