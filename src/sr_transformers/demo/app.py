"""The demo's page: a history in, the next items out, trajectories, two checkpoints side by side, figures of a study.

Gradio is imported where the page is built; nothing else of this library needs it. No usage statistics are sent. The
page serves no file but the figures and takes none; ids and titles are shown as text, whatever they hold.
"""

from pathlib import Path
from typing import Any

from sr_transformers.demo.answers import (
    DemoSession,
    Row,
    agreement,
    find_figures,
    parse_history,
    read_titles,
    split_moments,
)
from sr_transformers.public import harmless_cell, plain

SHOWN_UNKNOWN = 5  # ids that a message names
_UPLOADS = "1kb"  # the least that gradio can be told: the page has nothing to upload
HELP = (
    "A history is item ids, one a line, oldest first. Choose items from the list (the {choices} are there) or type any "
    "id. Probabilities are the model's over all items, seen or not."
)

HELP_ON_MOMENTS = (
    " An item may carry its moment, a whole number in the unit of the log: `milk @ 1700000000`. An item without one "
    "lies in the basket of the item before. The question is what comes right after the last item, at its moment."
)


def build_app(
    model: str | Path, compare: str | Path | None = None, titles: str | Path | None = None,
    study: str | Path | None = None, revision: str | None = None, compare_revision: str | None = None,
) -> Any:  # fmt: skip
    """The page, as a `gradio.Blocks` that is ready to be launched.

    Args:
        model: folder or Hub id of a checkpoint.
        compare: a second one, shown beside it.
        titles: file of titles, see `session.read_titles`.
        study: folder with figures.
        revision, compare_revision: branch, tag or commit of the two on the Hub.

    Raises:
        ValueError: if gradio is not installed, or as `read_titles` and `find_figures`.
    """
    try:
        import gradio
    except ImportError as error:
        raise ValueError("the demo needs the package gradio: pip install 'sr-transformers[demo]'.") from error
    names = read_titles(titles) if titles else {}
    figures = find_figures(study) if study else []
    asked = ((model, revision), (compare, compare_revision))
    sessions = [DemoSession.load(one, names, of) for one, of in asked if one is not None]
    columns = ["item", *(["title"] if names else []), "probability"]
    with gradio.Blocks(title=f"Next items: {sessions[0].name}", analytics_enabled=False) as app:
        choices = "first of the vocabulary" if sessions[0].recommender.popular is None else "most popular ones"
        moments = HELP_ON_MOMENTS if any(one.recommender.scorer.needs_times for one in sessions) else ""
        gradio.Markdown(f"# What comes next?\n{HELP.format(choices=choices)}{moments}")
        with gradio.Row():
            choice = gradio.Dropdown(
                sessions[0].choices(), value=None, label="Choose an item", elem_id="choice", scale=4
            )
            add = gradio.Button("Add to the history", elem_id="add", scale=1)
            clear = gradio.Button("Clear", elem_id="clear", scale=1)
        history = gradio.Textbox(lines=5, label="History, one item id a line, oldest first", elem_id="history")
        exclude_seen = gradio.Checkbox(
            sessions[0].recommender.exclude_seen, label="Leave out items of the history", elem_id="exclude-seen"
        )
        with gradio.Tab("Next items"):
            count = gradio.Slider(1, 50, 10, step=1, label="How many")
            recommend = gradio.Button("Recommend", variant="primary", elem_id="recommend")
            message = gradio.Markdown(elem_id="message")
            next_tables = _tables(gradio, sessions, ["place", *columns], "next")
        with gradio.Tab("Trajectory"):
            gradio.Markdown("Each step takes the most likely item to be the next one, and goes on from there.")
            steps = gradio.Slider(1, 50, 10, step=1, label="Steps")
            follow = gradio.Button("Follow", variant="primary", elem_id="follow")
            step_message = gradio.Markdown(elem_id="step-message")
            step_tables = _tables(gradio, sessions, ["step", *columns], "steps")
        if figures:
            with gradio.Tab("Study"):
                gradio.Gallery(figures, label="Figures", columns=2, object_fit="contain", elem_id="figures")

        def show_next(text: str, k: int, without_seen: bool) -> list[Any]:
            return _answer(
                sessions, text, lambda one, items, times: one.next_items(items, int(k), without_seen, times), True
            )

        def show_steps(text: str, num_steps: int, without_seen: bool) -> list[Any]:
            return _answer(
                sessions,
                text,
                lambda one, items, times: one.trajectory(items, int(num_steps), without_seen, times),
                False,
            )

        add.click(_append, [history, choice], [history])
        clear.click(lambda: "", outputs=[history])
        recommend.click(show_next, [history, count, exclude_seen], [message, *next_tables])
        follow.click(show_steps, [history, steps, exclude_seen], [step_message, *step_tables])
    return app


def serve(app: Any, study: str | Path | None = None, **options: Any) -> Any:
    """Launches a page so that of all files here only the figures are served, and none is taken.

    Args:
        app: what `build_app` returned.
        study: the folder of figures that it was built with.
        options: further ones of `gradio.Blocks.launch`.
    """
    figures = [str(Path(path).absolute()) for path, _ in find_figures(study)] if study else []
    return app.launch(allowed_paths=figures, max_file_size=_UPLOADS, **options)


def _tables(gradio: Any, sessions: list[DemoSession], columns: list[str], name: str) -> list[Any]:
    """A table per model, side by side."""
    with gradio.Row():
        return [
            gradio.Dataframe(
                headers=[*columns, *(["own past"] if one.explains else [])],
                label=one.name,
                interactive=False,
                elem_id=f"{name}-{index}",
                wrap=True,
            )
            for index, one in enumerate(sessions)
        ]


def _append(text: str, item: str | None) -> str:
    """The history with one more item at its end."""
    lines = [text.rstrip("\n")] if text.strip() else []
    return "\n".join([*lines, item]) if item else text


def _answer(sessions: list[DemoSession], text: str, ask: Any, compare: bool) -> list[Any]:
    """A message and a table per model; a request that cannot be answered is said in the message."""
    try:
        items, times = parse_history(text), None
        if any(one.recommender.scorer.needs_times for one in sessions):
            items, times = split_moments(items)
    except ValueError as error:
        return [plain(error), *([] for _ in sessions)]
    notes = []
    for one in sessions:
        unknown = one.unknown(items)
        if len(unknown) == len(items):
            instead = (
                "its vocabulary keeps no training counts, so there is nothing to show instead."
                if one.recommender.popular is None
                else "it shows the most popular items."
            )
            notes.append(f"{plain(one.name)} knows no item of this history; {instead}")
        elif unknown:
            notes.append(f"{plain(one.name)} does not know {_some(unknown)}: skipped.")
    tables = [ask(one, items, times) for one in sessions]
    if compare and len(tables) == 2:
        notes.append(agreement(*tables))
    return ["\n\n".join(notes), *map(_harmless, tables)]


def _some(items: list[str]) -> str:
    """The first few of items, and how many there are."""
    different = list(dict.fromkeys(items))
    rest = len(different) - SHOWN_UNKNOWN
    return ", ".join(map(plain, different[:SHOWN_UNKNOWN])) + (f" and {rest:,} more" if rest > 0 else "")


def _harmless(table: list[Row]) -> list[list[object]]:
    """A table that can be copied into a spreadsheet."""
    return [[harmless_cell(cell) for cell in row] for row in table]
