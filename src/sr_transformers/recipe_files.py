"""The YAML files that come with this package, by name: recipes, studies, configurations of accelerate.

There is one copy: `recipes/` at the top of the clone, which an editable install reads too; the wheel carries it inside
of the package. A recipe is called by its folder and name, "lsrm/98k", or by the name alone.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path

FOLDERS = ("lsrm", "regimes", "studies", "accelerate")
RECIPES = ("lsrm", "regimes")
STUDIES = ("studies",)


def recipe_folder() -> Path:
    """Where the files lie."""
    here = Path(__file__).resolve()
    packaged = here.parent / "recipes"
    return packaged if packaged.is_dir() else here.parents[2] / "recipes"


def recipe_names(folders: Sequence[str] = FOLDERS) -> list[str]:
    """Names of the files in some folders, folder by folder.

    >>> recipe_names(["regimes"])
    ['regimes/dense', 'regimes/repeats', 'regimes/sparse']
    """
    root = recipe_folder()
    return [f"{folder}/{path.stem}" for folder in folders for path in sorted((root / folder).glob("*.yaml"))]


def find_recipe(name_or_path: str | Path, folders: Sequence[str] = FOLDERS, what: str = "recipe") -> Path:
    """The file of a name or a path; a file that is there wins over a name.

    Args:
        folders: where to look for the name.
        what: it is, for the message.

    Raises:
        FileNotFoundError: if it is neither; the message has the nearest name.
    """
    path, wanted = Path(name_or_path), str(name_or_path)
    if path.is_file():
        return path
    names = recipe_names(folders)
    found = [name for name in names if wanted in (name, name.rpartition("/")[2])]
    if len(found) == 1:
        return recipe_folder() / f"{found[0]}.yaml"
    known = {key: name for name in names for key in (name, name.rpartition("/")[2])}
    close = difflib.get_close_matches(wanted.removesuffix(".yaml").rpartition("/")[2], known, n=1)
    hint = f" Did you mean {known[close[0]]}?" if close else ""
    raise FileNotFoundError(
        f"{path}: no such {what}, neither as a file nor by name.{hint} `sr-transformers recipes` lists the names."
    )


def recipe_title(name: str) -> str:
    """What a file says of itself: the first sentence of its head.

    >>> recipe_title("lsrm/98k")[:5]
    'LSRM '
    """
    head = []
    for line in (recipe_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    return " ".join(head).split(". ")[0].removesuffix(".")
