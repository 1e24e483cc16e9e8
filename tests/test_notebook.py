"""The notebook in docs/ runs from the first cell to the last, in an empty folder, and is kept without outputs."""

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
import nbformat  # noqa: E402

NOTEBOOK = Path(__file__).parent.parent / "docs" / "ten_minutes.ipynb"


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    for what in ("prepared log", "RunRecord(sparse", "ann", "library_name"):
        assert what in shown, what
    assert (tmp_path / "shop-hub" / "model.safetensors").is_file()
    assert "0x" not in "".join(str(out.get("data")) for cell in notebook.cells for out in cell.get("outputs", []))
