"""What all figures share: colours and markers that everybody can tell apart, empty axes, and files that do not change.

Needs matplotlib (the extra `figures`). Colours are Okabe and Ito's; series differ in markers too, so that a figure can
be read in grey.
"""

from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def blank(width: float, height: float) -> Any:
    """An empty figure of so many inches.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'sr-transformers[figures]'.") from error
    return Figure(figsize=(width, height), layout="constrained")


def new_figure(title: str, x: str, y: str) -> tuple[Any, Any]:
    """An empty figure and its axes in the style of all of them."""
    figure = blank(6.4, 4.4)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, wrap=True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, folder: str | Path, name: str) -> list[Path]:
    """Writes NAME.png (150 dots per inch) and NAME.svg into a folder, made if missing; always the same."""
    import matplotlib

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(paths[0], dpi=150)
    # No date and fixed ids.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
