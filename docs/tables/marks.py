"""Where a page shows what a script wrote: between a mark and its end, `<!-- name -->` and `<!-- /name -->`."""

from pathlib import Path


def put(page: Path, begin: str, end: str, content: str) -> None:
    """Replaces what stands between two marks of a page, each of which stands there once."""
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(before + begin + "\n" + content + "\n" + end + rest.split(end)[1], encoding="utf-8")
