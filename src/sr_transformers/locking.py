"""One process at a time in an output folder: whoever comes second is refused before it touches a file."""

import contextlib
import errno
import fcntl
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"
_held: set[int] = set()  # file descriptors of this process's locks
_NOT_OFFERED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


def _let_go_in_child() -> None:
    # A lock lives as long as any process has it open: a data loader's worker must not outlive a killed run with it.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go_in_child)


@contextlib.contextmanager
def only_one(folder: str | Path) -> Iterator[None]:
    """Keeps a folder to this process for the time of the block. The lock dies with the process, however that ends.

    The folder is made if it is missing; if nothing was written into it, it is gone again afterwards. Of several
    processes that do one job together only the first may ask.

    Raises:
        BlockingIOError: if another process (or another thread of this one) works in the folder; the message names it.
    """
    folder = Path(folder).resolve()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = _take(folder)
    try:
        yield
    finally:
        if handle in _held:  # not in a forked child
            (folder / LOCK).unlink(missing_ok=True)
            _held.remove(handle)
            os.close(handle)
            with contextlib.suppress(OSError):  # not empty: the block has left its work there
                for path in made:
                    path.rmdir()


def _take(folder: Path) -> int:
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its last user has just removed the folder that it had made
            continue
        except FileExistsError:  # likewise, between mkdir's finding it and looking whether it is a folder
            if folder.exists() and not folder.is_dir():
                raise
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(handle, 300).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise BlockingIOError(
                f"{folder} is in use: {owner} is writing to it. Wait until that has ended, or choose another output "
                "folder."
            ) from error
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                os.close(handle)
                raise
            warnings.warn(f"{folder} lies on a file system without locks: start nothing else there.", stacklevel=4)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        os.close(handle)  # of a file that its last user has just removed
    _held.add(handle)
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
    return handle
