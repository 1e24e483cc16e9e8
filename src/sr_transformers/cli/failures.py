"""The last net under every command: whatever ends one is a line on stderr and an exit code.

Whoever reads a file says which it is and what to do, by a ValueError or OSError; such a message is shown as it is. What
comes here raw from a library is named by its kind. Anything else is a fault of this program: its traceback is kept in a
file. SR_TRANSFORMERS_TRACEBACK=1 shows the traceback of any failure. No imports that cost: `--help` needs this too.
"""

import argparse
import errno
import linecache
import os
import re
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from sr_transformers.messages import one_line

USERS_FAULT, OUR_FAULT, INTERRUPTED, OUTPUT_CLOSED = 2, 1, 130, 141
TRACEBACK = "SR_TRANSFORMERS_TRACEBACK"

_PACKAGE = Path(__file__).resolve().parent.parent
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What torch's and safetensors' writers say instead of an errno.
_NO_ROOM_TEXT = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (28|122|27)\b"
    r"|file write failed|iostream error|unexpected pos \d+ vs \d+"
)
_NO_MEMORY_TEXT = re.compile(r"can't allocate memory|out of memory|std::bad_alloc", re.IGNORECASE)
# By package and name of a class, so that none has to be imported to be known.
_NO_MEMORY = {"builtins.MemoryError", "torch.OutOfMemoryError", "duckdb.OutOfMemoryException"}
_KINDS = {
    "safetensors.SafetensorError": "a file of weights is damaged or cut (safetensors); copy or make it again",
    "pickle.PickleError": "a file is damaged, or holds more than numbers, which is not loaded since it could run code",
    "yaml.YAMLError": "a YAML file cannot be read",
    "json.JSONDecodeError": "a JSON file is damaged or cut",
    "builtins.UnicodeError": "a text is not in UTF-8; save it as UTF-8",
    "builtins.RecursionError": "the input is nested too deeply",
    "polars.PolarsError": "a table cannot be read",
    "pyarrow.ArrowException": "an Arrow or Parquet table cannot be read",
    "duckdb.Error": "a table cannot be read",
    "datasets.DatasetsError": "a data set cannot be read",
    "zipfile.BadZipFile": "an archive is damaged or cut; fetch it again",
    "zlib.error": "a compressed file is damaged or cut; fetch it again",
    "lzma.LZMAError": "a compressed file is damaged or cut; fetch it again",
    "tarfile.TarError": "an archive is damaged or cut; fetch it again",
    "builtins.EOFError": "a file ends too early; copy or make it again",
    "http.HTTPException": "a server did not answer as it should; try again later",
    "httpx2.HTTPError": "the network or the server failed; try again later",
    "httpx2.InvalidURL": "an address is not well formed",
    "httpx2.StreamError": "the network or the server failed; try again later",
    "huggingface_hub.StrictDataclassError": "a configuration does not hold what it should",
}


class CtrlC:
    """Listens to SIGINT: the first one ends the command in order, a second one at once.

    Without this a Ctrl-C inside of a destructor is lost with a traceback, a library can make another error of it, and
    a second one during the end of the program is a traceback too.

    Args:
        line: what is said, once, however often the keys are pressed.

    Attributes:
        pressed: whether there was one.
    """

    def __init__(self, line: str):
        self.line, self.pressed, self._said = line, False, False

    def __enter__(self) -> "CtrlC":
        self._listens = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nobody ignores it or has plans with it
        )
        if self._listens:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens and not self.pressed:  # else the program is about to end
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, signum: int, frame: FrameType | None) -> None:
        if self.pressed or _imports(frame):
            os._exit(self.say())
        self.pressed = True
        raise KeyboardInterrupt

    def say(self) -> int:
        """Says the line unless it was said; returns the exit code."""
        if not self._said:
            self._said = True
            end_bars()
            os.write(2, f"{self.line}\n".encode())
        return INTERRUPTED


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported: libraries in C++ abort the process when that is interrupted."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def tell(error: Exception, options: argparse.Namespace) -> int:
    """Says on stderr what ended a command, in one line; returns the exit code."""
    if isinstance(error, BrokenPipeError) and _output_is_closed():
        return OUTPUT_CLOSED
    end_bars()
    code, words = explain(error, options)
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    elif code == OUR_FAULT:
        words += _keep_traceback(error)
    print(f"sr-transformers {options.command}: {words}", file=sys.stderr)
    return code


def end_bars() -> None:
    """Ends the lines of progress bars that their owner left open: what comes next is a line of its own."""
    tqdm = sys.modules.get("tqdm.std")
    for bar in list(tqdm.tqdm._instances) if tqdm is not None else ():
        bar.close()


def explain(error: Exception, options: argparse.Namespace) -> tuple[int, str]:
    """Exit code and words for an error: 2 for what the user can mend, 1 for a fault of this program."""
    words = _words(error)
    if _raised_here(error):
        return USERS_FAULT, words
    detail = f"{words or 'no more is known'} ({type(error).__name__}; {TRACEBACK}=1 shows where)"
    causes = list(_chain(error))
    if any(map(_no_room, causes)):
        return USERS_FAULT, (
            f"no room is left on the disk of {_written(causes, options)}: {detail}. Make room; {go_on(options)}"
        )
    if any(map(_no_memory, causes)):
        return USERS_FAULT, (
            f"there is not enough memory: {detail}. Make the model, the batch or the input smaller, or use a larger "
            "machine."
        )
    for name in _names(error):
        if name in _KINDS:
            return USERS_FAULT, f"{_KINDS[name]}: {detail}"
    if isinstance(error, OSError) and error.filename is not None:
        return USERS_FAULT, words
    if isinstance(error, ValueError | OSError | ImportError):  # a library's, mostly about what the user gave
        return USERS_FAULT, detail
    return OUR_FAULT, (
        f"unexpected {type(error).__name__}: {words}. This is a fault of the program, not yours; please report it to "
        "its authors"
    )


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = error.filename2 or error.filename  # of a copy the second is where it goes
        return one_line(error.strerror if where is None else f"{where}: {error.strerror}")
    return one_line(str(error))


def _raised_here(error: Exception) -> bool:
    """Whether a `raise` of this package made it: then its message is for users."""
    if not isinstance(error, ValueError | OSError | ImportError | TypeError) or error.__traceback__ is None:
        return False
    *_, (frame, number) = traceback.walk_tb(error.__traceback__)
    name = frame.f_code.co_filename
    return Path(name).is_relative_to(_PACKAGE) and linecache.getline(name, number).lstrip().startswith("raise ")


def _names(error: BaseException) -> list[str]:
    """Package and name of an error's class and those that it is derived from."""
    return [f"{one.__module__.split('.')[0].lstrip('_')}.{one.__name__}" for one in type(error).__mro__]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those while which it was raised: a writer that fails is closed, and fails once more."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _no_room(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_ROOM
    return _NO_ROOM_TEXT.search(str(error)) is not None


def _no_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not _NO_MEMORY.isdisjoint(_names(error)):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY_TEXT.search(str(error)) is not None


def _written(causes: list[BaseException], options: argparse.Namespace) -> str:
    """What the command was writing to."""
    for one in causes:
        if isinstance(one, OSError) and one.filename is not None:
            return str(one.filename2 or one.filename)
    for name in ("output", "space", "json", "figures", "figure", "folder"):
        if getattr(options, name, None):
            return str(getattr(options, name))
    return tempfile.gettempdir()


def go_on(options: argparse.Namespace) -> str:
    """How to go on after a command that did not come to its end."""
    return getattr(options, "go_on", "run the same command again.").format(**vars(options))


def _keep_traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="sr-transformers-", suffix=".txt", delete=False) as file:
            file.write(text)
    except OSError:  # nowhere to write: better two pages than nothing
        print(text, file=sys.stderr)
        return " with the traceback above."
    return f" with the traceback in {file.name}."


def _output_is_closed() -> bool:
    """Whether nobody reads stdout any more; from then on what is written there goes nowhere, without a word."""
    poll = select.poll()
    poll.register(1, 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return closed
