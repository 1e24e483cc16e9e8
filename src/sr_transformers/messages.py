"""Words of messages: values of any size cut to a line. No heavy imports: the command line loads this first."""

import reprlib

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = 5
_REPR.maxlevel = 3


def shown(value: object) -> str:
    """`repr` of a value, but never more than a line: of the rest "..." is left. Costs what it shows.

    >>> shown([1e-3, 2, 3, 4, 5, 6, 7])
    '[0.001, 2, 3, 4, 5, ...]'
    """
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python refuses to write numbers of more than 4,300 digits
        return f"a value too long to show ({type(value).__name__})"
    return one_line(text, 300)


def one_line(text: str, limit: int = 1500) -> str:
    """A text without line breaks and runs of spaces, its middle left out if it is longer than `limit` characters.

    >>> one_line("a  b\\n c")
    'a b c'
    """
    line = " ".join(text[: 100 * limit].split())
    return line if len(line) <= limit else f"{line[: limit // 2]} ... {line[-limit // 2 :]}"
