import runpy

import pytest
from huggingface_hub import metadata_load

from sr_transformers.cli import main
from sr_transformers.demo.space import write_space

gradio = pytest.importorskip("gradio", reason="needs the extra demo")


def test_a_space_is_whole(tmp_path, titles, study):
    folder = write_space("org/sr-98k", tmp_path / "space", "org/sr-786k", titles, study, "sr-transformers[demo]==0.1")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"app.py", "requirements.txt", "README.md", "titles.csv", "study/fits/law.svg"}
    assert (folder / "requirements.txt").read_text() == "sr-transformers[demo]==0.1\n"
    metadata = metadata_load(folder / "README.md")
    assert metadata["sdk"] == "gradio"
    assert metadata["sdk_version"] == gradio.__version__
    assert metadata["models"] == ["org/sr-98k", "org/sr-786k"]
    assert "(https://huggingface.co/org/sr-786k)" in (folder / "README.md").read_text()


def test_its_app_builds_the_page(tmp_path, checkpoints, titles, study, monkeypatch, capsys):
    arguments = ["--titles", str(titles), "--study", str(study), "--space", str(tmp_path / "space")]
    assert main(["demo", str(checkpoints[0]), *arguments]) == 0
    assert str(tmp_path / "space") in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "space")
    app = runpy.run_path("app.py")["app"]
    assert app.title == "Next items: one"
    labels = [block.label for block in app.blocks.values() if isinstance(block, gradio.Tab)]
    assert labels == ["Next items", "Trajectory", "Study"]


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_space("org/sr-98k", tmp_path)
