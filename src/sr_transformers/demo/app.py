"""The demo's page: a history in, the next items out, trajectories, two checkpoints side by side, figures of a study.

It opens with a history already in it: that of a held-out user of a log, or one that the model generates. Gradio is
imported where the page is built; nothing else of this library needs it. No usage statistics are sent, and nothing is
fetched from elsewhere. The page serves no file but the figures and takes none; ids and titles are shown as text,
whatever they hold.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from sr_transformers.demo import drawing
from sr_transformers.demo.answers import LOOKED_AT, DemoSession, agreement, parse_history, split_moments, where
from sr_transformers.demo.files import find_figures, read_titles
from sr_transformers.demo.opening import HeldOut, MadeUp, Opening, Openings

STYLE = Path(__file__).parent / "style.css"
_UPLOADS = "1kb"  # the least that gradio can be told: the page has nothing to upload
HELP = (
    "A history is item ids, one a line, oldest first. Choose items from the list (the {choices} are there) or type any "
    "id. Probabilities are the model's over all items, seen or not."
)
HELP_ON_MOMENTS = (
    " An item may carry its moment, a whole number in the unit of the log: `milk @ 1700000000`. An item without one "
    "lies in the basket of the item before. The question is what comes right after the last item, at its moment."
)
MOST = 50  # next items, and steps of a trajectory
# A reader of screens is told which field is wrong, and by what; gradio has no property for it.
_TELL = """() => {
    for (const field of ["history", "choice", "count", "length"]) {
        const box = document.querySelector(`#${field} textarea, #${field} input`);
        box.setAttribute("aria-invalid", document.querySelector(`#${field}-problem [role=alert]`) !== null);
        box.setAttribute("aria-describedby", `${field}-problem`);
    }
}"""


@dataclass
class Page:
    """What the page answers, as HTML, whoever asks.

    Attributes:
        sessions: one model, or two that are compared.
        openings: where histories come from that nobody typed.
    """

    sessions: list[DemoSession]
    openings: Openings

    def open(self, k: float | None, steps: float | None, exclude_seen: bool) -> list[Any]:
        """A history that nobody typed, and what `answer` says of it: (text, opening, no problem, *answer)."""
        opening = self.openings.draw()
        return [opening.text, opening, "", *self.answer(opening.text, opening, k, steps, exclude_seen)]

    def add(self, text: str, item: str | None) -> tuple[str, str]:
        """The history with one more item at its end, and what is wrong with the choice."""
        if not item:
            return text, drawing.message(["Choose an item first: type a part of its name and press Enter."])
        lines = [text.rstrip("\n")] if text.strip() else []
        return "\n".join([*lines, item]), ""

    def answer(
        self, text: str, opening: Opening | None, k: float | None, steps: float | None, exclude_seen: bool
    ) -> list[str]:
        """What is wrong with the history, with k and with steps; the history's cards, next items and trajectories.

        Args:
            text: the field of the history.
            opening: what it was filled with; what came next is known as long as nobody changed it.
            k: how many next items, a whole number from 1 to `MOST`.
            steps: of the trajectories, likewise.
            exclude_seen: leave out items of the history.
        """
        try:
            items, times = parse_history(text), None
            if any(one.recommender.scorer.needs_times for one in self.sessions):
                items, times = split_moments(items)
        except ValueError as error:
            return [drawing.message([str(error)]), _wrong(k), _wrong(steps), "", "", ""]
        errors, notes = self._unknown(items)
        if not _is_count(k) or not _is_count(steps):
            return [drawing.message(errors, notes), _wrong(k), _wrong(steps), "", "", ""]
        k, steps = int(k), int(steps)
        given = opening if opening is not None and opening.text == text else None
        target = given.target if given else None
        asked = k if target is None else max(k, LOOKED_AT)
        found = [one.next_items(items, asked, exclude_seen, times) for one in self.sessions]
        places = []
        if target is not None:
            gone = exclude_seen and target in items
            places = [where(target, *pair, gone) for pair in zip(found, self.sessions, strict=True)]
        lists = [some[:k] for some in found]
        words = [agreement(*lists)] if len(lists) == 2 else []
        if any(one.reason for some in lists for one in some):
            words.append("The striped part of a bar is what the user's own past adds.")
        paths = [one.trajectory(items, steps, exclude_seen, times) for one in self.sessions]
        first = self.sessions[0]
        return [
            drawing.message(errors, notes),
            "",
            "",
            drawing.history_cards(items, first, first.unknown(items), given.words if given else ""),
            drawing.next_lists(self.sessions, lists, target, places, " ".join(words)),
            drawing.trajectories(self.sessions, paths),
        ]

    def _unknown(self, items: list[str]) -> tuple[list[str], list[str]]:
        """Errors and notes on items that a model does not know."""
        errors, notes = [], []
        for one in self.sessions:
            unknown = one.unknown(items)
            if len(unknown) == len(items):
                instead = (
                    "its vocabulary keeps no training counts, so there is nothing to show instead."
                    if one.recommender.popular is None
                    else "it shows the most popular items."
                )
                errors.append(f"{one.name} knows no item of this history; {instead}")
            elif unknown:
                notes.append(f"{one.name} does not know {drawing.some(unknown)}: skipped.")
        return errors, notes


def build_app(
    model: str | Path, compare: str | Path | None = None, titles: str | Path | None = None,
    study: str | Path | None = None, revision: str | None = None, compare_revision: str | None = None,
    data: str | Path | None = None, seed: int | None = None,
) -> Any:  # fmt: skip
    """The page, as a `gradio.Blocks` that is ready for `serve`.

    Args:
        model: folder or Hub id of a checkpoint.
        compare: a second one, shown beside it.
        titles: file of titles, see `files.read_titles`.
        study: folder with figures.
        revision, compare_revision: branch, tag or commit of the two on the Hub.
        data: prepared log: the page opens with one of its held-out users, and marks what came next. None: with a
            history that the model generates.
        seed: of what the page opens with; None: another one each time.

    Raises:
        ValueError: if gradio is not installed, or as `read_titles`, `find_figures` and `HeldOut`.
    """
    try:
        import gradio
    except ImportError as error:
        raise ValueError("the demo needs the package gradio: pip install 'sr-transformers[demo]'.") from error
    names = read_titles(titles) if titles else {}
    figures = find_figures(study) if study else []
    asked = ((model, revision), (compare, compare_revision))
    sessions = [DemoSession.load(one, names, of) for one, of in asked if one is not None]
    first = sessions[0]
    page = Page(sessions, HeldOut(data, first, seed) if data else MadeUp(first, seed))
    with gradio.Blocks(title=f"Next items: {first.name}", analytics_enabled=False) as app:
        choices = "first of the vocabulary" if first.recommender.popular is None else "most popular ones"
        moments = HELP_ON_MOMENTS if any(one.recommender.scorer.needs_times for one in sessions) else ""
        gradio.Markdown(f"# What comes next?\n{HELP.format(choices=choices)}{moments}", elem_id="what")
        opened = gradio.State(None)
        with gradio.Row(elem_id="page"):
            with gradio.Column(elem_id="ask", min_width=0):
                another = gradio.Button(page.openings.another, elem_id="another")
                history = gradio.Textbox(
                    lines=6, max_lines=8, label="History, one item id a line, oldest first", elem_id="history",
                    info="Shift and Enter, or the button, recommend.",
                )  # fmt: skip
                problem = gradio.HTML(elem_id="history-problem", apply_default_css=False)
                recommend = gradio.Button("Recommend", variant="primary", elem_id="recommend")
                choice = gradio.Dropdown(first.choices(), value=None, label="Choose an item", elem_id="choice")
                choice_problem = gradio.HTML(elem_id="choice-problem", apply_default_css=False)
                with gradio.Row():
                    add = gradio.Button("Add to history", elem_id="add", min_width=100)
                    clear = gradio.Button("Clear history", elem_id="clear", min_width=100)
            with gradio.Column(elem_id="shown", min_width=0):
                cards = gradio.HTML(elem_id="shown-history", apply_default_css=False)
                lists = gradio.HTML(elem_id="next", apply_default_css=False)
                paths = gradio.HTML(elem_id="steps", apply_default_css=False)
            with gradio.Column(elem_id="settings", min_width=0):
                count = gradio.Number(10, label=f"How many next items, 1 to {MOST}", elem_id="count")
                count_problem = gradio.HTML(elem_id="count-problem", apply_default_css=False)
                length = gradio.Number(6, label=f"Steps of the trajectory, 1 to {MOST}", elem_id="length")
                length_problem = gradio.HTML(elem_id="length-problem", apply_default_css=False)
                exclude_seen = gradio.Checkbox(
                    first.recommender.exclude_seen, label="Leave out items of the history", elem_id="exclude-seen"
                )
        if figures:
            gradio.Markdown("## Study", elem_id="study-head")
            gradio.Gallery(figures, label="Figures", columns=2, object_fit="contain", elem_id="figures")

        controls = [count, length, exclude_seen]
        answered = [problem, count_problem, length_problem, cards, lists, paths]
        asking: dict[str, Any] = {"fn": page.answer, "inputs": [history, opened, *controls], "outputs": answered}
        filled = [history, opened, choice_problem]
        opening: dict[str, Any] = {"fn": page.open, "inputs": controls, "outputs": [*filled, *answered]}
        app.load(**opening).then(None, js=_TELL)
        another.click(**opening).then(None, js=_TELL)
        for changed in (recommend.click, history.submit, count.change, length.change, exclude_seen.input):
            changed(**asking, trigger_mode="always_last").then(None, js=_TELL)
        adding = add.click(page.add, [history, choice], [history, choice_problem])
        adding.then(**asking).then(None, js=_TELL)
        choice.input(lambda: "", outputs=[choice_problem]).then(None, js=_TELL)
        clear.click(lambda: "", outputs=[history])
    return app


def _is_count(value: float | None) -> TypeGuard[float]:
    return value is not None and 1 <= value <= MOST and value == int(value)


def _wrong(value: float | None) -> str:
    """What is wrong with a number of items."""
    return "" if _is_count(value) else drawing.message([f"Give a whole number from 1 to {MOST}."])


def serve(app: Any, study: str | Path | None = None, **options: Any) -> Any:
    """Launches a page so that of all files here only the figures are served, and none is taken.

    Args:
        app: what `build_app` returned.
        study: the folder of figures that it was built with.
        options: further ones of `gradio.Blocks.launch`.
    """
    figures = [str(Path(path).absolute()) for path, _ in find_figures(study)] if study else []
    return app.launch(allowed_paths=figures, max_file_size=_UPLOADS, css_paths=[STYLE], **options)
