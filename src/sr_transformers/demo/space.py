"""Writes the demo as a Hugging Face Space: a folder with app.py, requirements.txt and a README with its metadata.

Uploading the folder is the caller's matter (`huggingface_hub.upload_folder(repo_type="space", ...)`).
"""

import importlib.metadata
import shutil
from pathlib import Path

from huggingface_hub import metadata_save

from sr_transformers import __version__
from sr_transformers.demo.session import find_figures, read_titles

_APP = '''"""Shows what {model} recommends; written by sr-transformers {version}."""

from sr_transformers.demo.app import build_app

app = build_app({arguments})

if __name__ == "__main__":
    app.launch()
'''
_README = """# What comes next?

A history of item ids in, the next items out: [{model}](https://huggingface.co/{model}){beside}.
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
    """Writes the folder.

    Args:
        model: Hub id of the checkpoint that the Space loads.
        output: folder to make; it must not exist or be empty.
        compare: Hub id of a second one.
        titles: file of titles, copied into the folder.
        study: folder of figures, which are copied.
        package: requirement that installs this library there, for example a git URL.
        license: of the Space.
        revision, compare_revision: branch, tag or commit of the two on the Hub.

    Returns:
        The folder.

    Raises:
        FileExistsError: if `output` has something in it.
        FileNotFoundError, ValueError: as `session.read_titles` and `session.find_figures`.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not an empty folder; choose another output or remove it.")
    if titles:
        read_titles(titles)  # refuse now what the Space would refuse later
    figures = find_figures(study) if study else []
    output.mkdir(parents=True, exist_ok=True)
    arguments = [repr(model)]
    if compare:
        arguments.append(f"compare={compare!r}")
    if titles:
        name = f"titles{Path(titles).suffix.lower()}"
        shutil.copyfile(titles, output / name)
        arguments.append(f"titles={name!r}")
    if figures:
        for path, caption in figures:
            copy = output / "study" / f"{caption}{Path(path).suffix}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        arguments.append("study='study'")
    for name, of in (("revision", revision), ("compare_revision", compare_revision)):
        if of:
            arguments.append(f"{name}={of!r}")
    app = _APP.format(model=model, version=__version__, arguments=", ".join(arguments))
    (output / "app.py").write_text(app)
    (output / "requirements.txt").write_text(f"{package}\n")
    beside = f" beside [{compare}](https://huggingface.co/{compare})" if compare else ""
    (output / "README.md").write_text(_README.format(model=model, beside=beside))
    metadata = {
        "title": f"Next items: {model.split('/')[-1]}",
        "sdk": "gradio",
        "sdk_version": importlib.metadata.version("gradio"),
        "app_file": "app.py",
        "license": license,
        "models": [one for one in (model, compare) if one],
        "tags": ["sr_transformers", "recommendation"],
    }
    metadata_save(output / "README.md", metadata)
    return output
