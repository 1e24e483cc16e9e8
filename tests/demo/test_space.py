import runpy
import shutil

import pytest
from huggingface_hub import metadata_load

from sr_transformers import Recommender
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


def test_a_model_of_a_folder_is_copied(tmp_path, checkpoints, monkeypatch):
    folder = write_space(str(checkpoints[0]), tmp_path / "space", str(checkpoints[1]))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"models/one/model.safetensors", "models/two/tokenizer.json"} <= files
    assert not any(str(checkpoints[0]) in path.read_text() for path in folder.iterdir() if path.is_file())
    assert "models" not in metadata_load(folder / "README.md")
    monkeypatch.chdir(folder)
    here = Recommender.from_pretrained("models/one").recommend(["item 3"], 3)
    assert here == Recommender.from_pretrained(checkpoints[0]).recommend(["item 3"], 3)


EVIL = 'x/y""" import os; os.system("touch marker") """'


@pytest.mark.parametrize(
    "name",
    [EVIL, "x/y'; import os; os.mkdir('marker')#", "x/{0.__class__}", "x/y\nimport os\nos.mkdir('marker')", "{model}"],
)
def test_no_name_becomes_code(tmp_path, name, checkpoints, monkeypatch):
    with pytest.raises(ValueError, match=r"is no name on the Hub|has no namespace"):
        write_space(name, tmp_path / "space")
    with pytest.raises(ValueError, match=r"is no name on the Hub|has no namespace"):
        write_space("org/fine", tmp_path / "space", compare=name)
    assert not (tmp_path / "space").exists()
    # A folder may have any name.
    here = tmp_path / "here" / name.replace("/", "-")
    shutil.copytree(checkpoints[0], here)
    folder = write_space(str(here), tmp_path / "space")
    monkeypatch.chdir(folder)
    runpy.run_path("app.py")
    assert not (folder / "marker").exists()
    assert "import" not in (folder / "app.py").read_text().replace(
        "from sr_transformers.demo.app import build_app, serve", ""
    )
    assert metadata_load("README.md")["title"] == f"Next items: {here.name}"


def test_a_failure_leaves_no_half_folder(tmp_path, checkpoints, study, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sr_transformers.demo.space.metadata_save", full)
    with pytest.raises(OSError, match=r"the disk is full at .* nothing was left"):
        write_space(str(checkpoints[0]), tmp_path / "space", study=study)
    assert list(tmp_path.iterdir()) == []


def test_its_app_builds_the_page(tmp_path, checkpoints, titles, study, monkeypatch, capsys):
    arguments = ["--titles", str(titles), "--study", str(study), "--space", str(tmp_path / "space")]
    assert main(["demo", str(checkpoints[0]), *arguments]) == 0
    assert str(tmp_path / "space") in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "space")
    app = runpy.run_path("app.py")["app"]
    assert app.title == "Next items: one"
    labels = {getattr(block, "label", None) or getattr(block, "value", None) for block in app.blocks.values()}
    assert {"Generate another history", "Recommend", "Figures"} <= {one for one in labels if isinstance(one, str)}


def test_a_space_of_a_model_with_history_takes_moments_and_gives_reasons(tmp_path, with_history, monkeypatch):
    folder = write_space(str(with_history), tmp_path / "space")
    monkeypatch.chdir(folder)
    app = runpy.run_path("app.py")["app"]
    assert "An item may carry its moment" in str(app.get_config_file())
    (answer,) = {one.fn for one in app.fns.values() if getattr(one.fn, "__name__", "") == "answer"}
    assert "because the user had it before" in answer("item 3 @ 5", None, 30, 1, False)[4]
    here = Recommender.from_pretrained(folder / "models" / "history").recommend(["item 3"], 3, times=[5], explain=True)
    assert here == Recommender.from_pretrained(with_history).recommend(["item 3"], 3, times=[5], explain=True)


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_space("org/sr-98k", tmp_path)
