"""What others may see: commands without secrets, paths without what lies above them, text without markup or formulas.

One rule for all that a run, a report, a card, a page or a Space holds. The value of an option that is named after a
secret, and every token of the Hub, becomes ***. A path below the working folder is told from there, any other absolute
one is its last part, and a part that is the user's name becomes ~. It refuses nothing by itself; `private_words` finds
what slipped in by another way.
"""

import getpass
import html
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

HIDDEN = "***"
_SECRETS = {"token", "secret", "password", "passwd", "credential", "credentials", "key"}
_HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")  # of an address
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def shown_command(words: Sequence[str]) -> str:
    """A command as one would type it, without secrets and without places on this machine.

    >>> shown_command(["train", "my recipe.yaml", "--hub_token", "x", "--data=/srv/logs/ml-1m"])
    "train 'my recipe.yaml' --hub_token '***' --data=ml-1m"
    """
    shown, secret = [], False
    for word in words:
        option, equals, _ = word.partition("=")
        if secret:
            word = HIDDEN
        elif equals and _names_secret(option):
            word = f"{option}={HIDDEN}"
        else:
            word = _shown_word(word)
        secret = not secret and not equals and _names_secret(option)
        shown.append(shlex.quote(without_secrets(word)))
    return " ".join(shown)


def without_secrets(text: str) -> str:
    """Text in which tokens of the Hub and names in addresses are hidden, and the home folder is ~."""
    for token in _tokens():
        text = text.replace(token, HIDDEN)
    text = _LOGIN.sub(f"{HIDDEN}@", _HUB_TOKEN.sub(HIDDEN, text))
    for home in _homes():
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    return text


def shown_path(path: str | Path) -> str:
    """A path from the working folder if it lies below, else its last part."""
    place = os.path.abspath(os.path.expanduser(path))
    try:
        here = os.getcwd()
    except FileNotFoundError:  # the working folder is gone
        here = os.path.join(place, "no such folder")
    # From / or /home the home folder lies below, and is named by what leads there.
    at_home = any(_below(place, home) and not _below(here, home) for home in _homes())
    text = os.path.relpath(place, here) if _below(place, here) and not at_home else os.path.basename(place)
    names = _user_names()
    return "/".join("~" if part in names else part for part in text.split("/"))


def shown_names(names_or_paths: Sequence[str]) -> list[str]:
    """Names for a table of models, given as folders or names on the Hub; no two are the same.

    >>> shown_names(["/srv/one/run", "/srv/two/run", "org/run"])
    ['run', 'run (2)', 'org/run']
    """
    shown = [_shown_word(one) for one in names_or_paths]
    return [
        f"{name} ({shown[: index + 1].count(name)})" if name in shown[:index] else name
        for index, name in enumerate(shown)
    ]


def last_part(name_or_path: str | Path) -> str:
    """A folder by its last part, wherever one stands; a name on the Hub as it is.

    >>> last_part("/srv/runs/small/"), last_part("org/sr-98k")
    ('small', 'org/sr-98k')
    """
    if not _is_path(str(name_or_path)):
        return str(name_or_path)
    part = os.path.basename(os.path.abspath(os.path.expanduser(name_or_path)))
    return "~" if part in _user_names() else part


def plain(text: object) -> str:
    """Text that Markdown shows as it is: no HTML, links, code or table cells come out of it, and it is one line.

    >>> plain("<b>x</b> | [a](b)")
    '&lt;b&gt;x&lt;/b&gt; &#124; [a&#93;(b)'
    """
    text = " ".join(html.escape(str(text), quote=False).split())
    # A bracket alone is a bracket; what follows it makes a link, an image or the target of one.
    return re.sub(r"[|`]|\](?=[(\[:])", lambda sign: f"&#{ord(sign[0])};", text)


def html_table(rows: Iterable[Sequence[object]], head: Sequence[object] = ()) -> str:
    """A table as notebooks show it; whatever stands in a cell is shown as text.

    >>> html_table([("items", "<3")])
    '<table><tbody><tr><td>items</td><td>&lt;3</td></tr></tbody></table>'
    """

    def row(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    top = f"<thead>{row(head, 'th')}</thead>" if head else ""
    return f"<table>{top}<tbody>{''.join(row(cells, 'td') for cells in rows)}</tbody></table>"


def harmless_cell(value: object) -> object:
    """A table's cell that no spreadsheet takes for a formula; numbers stay numbers.

    >>> harmless_cell("=1+1"), harmless_cell("i1"), harmless_cell(-1)
    ("'=1+1", 'i1', -1)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def private_words(content: bytes, tokens: Iterable[str | None] = ()) -> list[str]:
    """What in a file's content must not be shown, in words; empty if there is nothing.

    Args:
        tokens: secrets beside those of the environment.
    """
    found = []
    if any(token.encode() in content for token in [*_tokens(), *filter(None, tokens)]):
        found.append("your token of the Hub")
    elif re.search(_HUB_TOKEN.pattern.encode(), content):
        found.append("a token of the Hub")
    if any(re.search(re.escape(home.encode()) + rb"(?![\w.-])", content) for home in _homes()):
        found.append("the path of your home folder")
    return found


def _shown_word(word: str) -> str:
    """A word of a command: `PATH`, `--option=PATH`, `NAME=PATH,PATH` or `[PATH, PATH]`."""
    if _is_path(word) and (os.path.exists(word) or not re.search("[=,]", word)):
        return shown_path(word)
    pieces = re.split(r"([=,])", word)
    for index, piece in enumerate(pieces):
        before, middle, after = re.fullmatch(r"([\s\[({'\"]*)(.*?)([\s\])}'\"]*)", piece, re.DOTALL).groups()  # type: ignore[union-attr]
        if _is_path(middle):
            pieces[index] = before + shown_path(middle) + after
    return "".join(pieces)


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~")) or ".." in text.split("/") or (bool(text) and os.path.exists(text))


def _names_secret(option: str) -> bool:
    return option.startswith("-") and not _SECRETS.isdisjoint(re.split(r"[-_]", option.lower()))


def _below(place: str, folder: str) -> bool:
    return place == folder or place.startswith(folder.rstrip("/") + "/")


def _homes() -> list[str]:
    """The home folder, as it is named and where it really lies; none if it is the root."""
    home = os.path.abspath(os.path.expanduser("~"))
    return [one for one in dict.fromkeys((home, os.path.realpath(home))) if one != "/"]


def _user_names() -> set[str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = ""
    return {user, *(os.path.basename(home) for home in _homes())} - {""}


def _tokens() -> list[str]:
    """Tokens of the environment, the longest first; what is shorter than a word is no secret."""
    found = {os.environ.get(name, "") for name in _TOKEN_VARIABLES}
    return sorted((token for token in found if len(token) > 7), key=len, reverse=True)
