"""Where a page shows what a script wrote: between a mark and its end, `<!-- name -->` and `<!-- /name -->`.

For the scripts of this repository that write tables into its pages. The marks themselves stay.
"""

from pathlib import Path


def put(page: Path, name: str, content: str) -> None:
    """Replaces what stands between the marks of a name.

    Raises:
        ValueError: as `between`; the page is as it was.
    """
    before, _, after = _parts(page, name)
    page.write_text(f"{before}{_begin(name)}\n{content}\n{_end(name)}{after}", encoding="utf-8")


def between(page: Path, name: str) -> str:
    """What stands between the marks of a name, without the line breaks at its ends.

    Raises:
        ValueError: unless the page holds both marks once, one behind the other.
    """
    return _parts(page, name)[1]


def _parts(page: Path, name: str) -> tuple[str, str, str]:
    text, begin, end = page.read_text(encoding="utf-8"), _begin(name), _end(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{page} must hold {begin} once and {end} once behind it.")
    before, rest = text.split(begin)
    content, after = rest.split(end)
    return before, content.strip("\n"), after


def _begin(name: str) -> str:
    return f"<!-- {name} -->"


def _end(name: str) -> str:
    return f"<!-- /{name} -->"
