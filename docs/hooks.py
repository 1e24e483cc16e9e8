"""What MkDocs does beside reading docs/: pages that lie elsewhere, links out of docs/, and the executed notebook."""

import re
import tempfile
from pathlib import Path

import nbclient
import nbformat
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
# Pages of the site that lie beside what they are made from.
ELSEWHERE = {"results.md": "recipes/results/README.md", "speed.md": "benchmarks/README.md"}
NOTEBOOK = "ten_minutes.ipynb"


@event_priority(100)  # before the plugin that makes pages of notebooks
def on_files(files, config):
    """Adds the pages that lie elsewhere, with the pictures next to them, and puts the executed notebook in place."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
        for picture in (ROOT / source).parent.rglob("*.png"):
            name = picture.relative_to((ROOT / source).parent)
            if str(name) in (ROOT / source).read_text(encoding="utf-8"):
                files.append(File.generated(config, str(name), abs_src_path=str(picture)))
    files.remove(files.get_file_from_path(NOTEBOOK))
    folder = str(_executed(ROOT / "docs" / NOTEBOOK).parent)
    files.append(File(NOTEBOOK, folder, config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files outside of docs/ become the page of the site that shows them, or the file's path in the clone."""
    here = (ROOT / ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent

    def inside(link: re.Match) -> str:
        target = (here / link["target"]).resolve()
        if not target.exists():
            return link[0]  # left to MkDocs, which refuses it
        path = target.relative_to(ROOT).as_posix()
        for name, source in ELSEWHERE.items():
            if path == source:
                return f"[{link['text']}]({name}{link['anchor'] or ''})"
        if path.startswith("docs/"):
            name = target.relative_to(ROOT / "docs").as_posix()
            return f"[{link['text']}]({'../' * page.file.src_uri.count('/')}{name}{link['anchor'] or ''})"
        return f"{link['text']} (`{path}`)" if path not in link["text"] else f"`{path}`"

    return re.sub(r"(?<!!)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<target>[^)#]+)(?P<anchor>#[^)]*)?\)", inside, markdown)


def _executed(notebook: Path) -> Path:
    """The notebook with its outputs, run in a folder of its own."""
    folder = Path(tempfile.mkdtemp())
    (folder / "run").mkdir()
    document = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(document, timeout=600, resources={"metadata": {"path": str(folder / "run")}}).execute()
    for cell in (
        one for one in document.cells if one.cell_type == "code"
    ):  # progress bars and notices of other packages
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(document, folder / notebook.name)
    return folder / notebook.name
