"""Writes the demo as a Hugging Face Space: a folder with app.py, requirements.txt and a README with its metadata.

A model of the Hub is named, one in a folder here is copied into the Space. No name becomes code: app.py holds texts as
Python literals, and nothing else of them. Uploading the folder is the caller's matter
(`huggingface_hub.upload_folder(repo_type="space", ...)`).
"""

import importlib.metadata
import re
import shutil
from pathlib import Path

from huggingface_hub import metadata_save

from sr_transformers import __version__
from sr_transformers.data.staging import check_output, staged
from sr_transformers.demo.files import find_figures, read_titles
from sr_transformers.hub.upload import repo_name
from sr_transformers.public import last_part, plain
from sr_transformers.serving.recommender import Recommender

_APP = '''"""Shows what a model recommends; written by sr-transformers {version}."""

from sr_transformers.demo.app import build_app, serve

STUDY = {study!r}
app = build_app({arguments}, study=STUDY)

if __name__ == "__main__":
    serve(app, STUDY)
'''
_README = """# What comes next?

A history of item ids in, the next items out: {models}.
"""


def write_space(
    model: str,
    output: str | Path,
    compare: str | None = None,
    titles: str | Path | None = None,
    study: str | Path | None = None,
    package: str = "sr-transformers[demo]",
    license: str = "apache-2.0",
    revision: str | None = None,
    compare_revision: str | None = None,
) -> Path:
    """Writes the folder: all of it or, if something is wrong, nothing.

    Args:
        model: Hub id of the checkpoint that the Space loads, or a folder, whose model and vocabulary are copied.
        output: folder to make; it must not exist or be empty.
        compare: a second one.
        titles: file of titles, copied into the folder.
        study: folder of figures, which are copied.
        package: requirement that installs this library there, for example a git URL.
        license: of the Space.
        revision, compare_revision: branch, tag or commit of the two on the Hub.

    Returns:
        The folder.

    Raises:
        FileExistsError: if `output` has something in it.
        FileNotFoundError, ValueError: as `files.read_titles`, `files.find_figures` and `Recommender`, or for a
            model that is neither a folder nor a name on the Hub.
    """
    output = Path(output)
    check_output(output)
    if titles:
        read_titles(titles)  # refuse now what the Space would refuse later
    figures = find_figures(study) if study else []
    models = [one for one in (model, compare) if one is not None]
    named = [one for one in models if not Path(one).is_dir()]
    for one in named:
        repo_name(one)
    with staged(output) as folder:
        arguments = []
        for index, one in enumerate(models):
            place = one if one in named else _copy_model(one, folder, index)
            arguments.append(f"compare={place!r}" if index else repr(place))
        if titles:
            name = f"titles{Path(titles).suffix.lower()}"
            shutil.copyfile(titles, folder / name)
            arguments.append(f"titles={name!r}")
        for path, caption in figures:
            copy = folder / "study" / f"{caption}{Path(path).suffix}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        for name, of in (("revision", revision), ("compare_revision", compare_revision)):
            if of:
                arguments.append(f"{name}={of!r}")
        app = _APP.format(version=__version__, arguments=", ".join(arguments), study="study" if figures else None)
        (folder / "app.py").write_text(app, encoding="utf-8")
        (folder / "requirements.txt").write_text(f"{package}\n", encoding="utf-8")
        shown = [f"[{one}](https://huggingface.co/{one})" if one in named else plain(last_part(one)) for one in models]
        (folder / "README.md").write_text(_README.format(models=" beside ".join(shown)), encoding="utf-8")
        metadata = {
            "title": f"Next items: {last_part(model).split('/')[-1]}",
            "sdk": "gradio",
            "sdk_version": importlib.metadata.version("gradio"),
            "app_file": "app.py",
            "license": license,
            **({"models": named} if named else {}),
            "tags": ["sr_transformers", "recommendation"],
        }
        metadata_save(folder / "README.md", metadata)
    return output


def _copy_model(model: str, folder: Path, index: int) -> str:
    """Writes the model and vocabulary of a folder into the Space; their place there."""
    name = last_part(model)
    place = f"models/{name}" if re.fullmatch(r"[\w.-]+", name) else f"models/{index + 1}"
    if (folder / place).exists():  # two folders of one name
        place = f"models/{index + 1}"
    found = Recommender.from_pretrained(model)
    found.model.save_pretrained(folder / place)
    found.tokenizer.save_pretrained(folder / place)
    return place
