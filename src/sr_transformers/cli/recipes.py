"""`sr-transformers recipes`: the YAML files that come with the package; `recipes show NAME` prints one to edit."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command, its parts and their options."""
    group = commands.add_parser("recipes", help="list the recipes, studies and accelerate configurations by name")
    group.set_defaults(run=_list)
    parts = group.add_subparsers(dest="part", metavar="PART")
    show = parts.add_parser("show", help="print one, to keep and edit: recipes show lsrm/98k > mine.yaml")
    show.add_argument("name", help="as the list has it")
    show.set_defaults(run=_show)


def _list(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.recipe_files import recipe_names, recipe_title

    names = recipe_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {recipe_title(name)}")


def _show(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.recipe_files import find_recipe

    print(find_recipe(options.name).read_text(encoding="utf-8"), end="")
