"""What all figures share."""

import sys

import pytest

from sr_transformers.figures import COLOURS, MARKERS, blank, new_figure, save

pytest.importorskip("matplotlib", reason="figures need the extra `figures`")
pytestmark = pytest.mark.usefixtures("drawn")


def test_series_differ_in_colour_and_marker():
    assert len(set(COLOURS)) == len(set(MARKERS)) == 7


def test_a_figure_is_saved_twice_and_the_same_every_time(tmp_path):
    files = []
    for folder in ("a", "b"):
        figure, axes = new_figure("title", "x", "y")
        axes.plot([1, 2], [3, 4])
        files.append(save(figure, tmp_path / "new" / folder, "name"))
    assert [path.name for path in files[0]] == ["name.png", "name.svg"]
    assert [one.read_bytes() for one in files[0]] == [one.read_bytes() for one in files[1]]
    assert files[0][0].read_bytes()[:4] == b"\x89PNG"
    assert "title" in files[0][1].read_text()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'sr-transformers\[figures\]'"):
        blank(1, 1)
