"""All or nothing: a folder is filled under another name and gets its own in one step, when all of it is there.

Killed at any moment, a preparation leaves the output untouched, and a staging folder that the next preparation of the
same output removes. Two preparations of one output do not mix: the second to finish is refused.
"""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sr_transformers.data.logs.paths import check_name

_LOCK = ".lock"


def check_output(output: Path) -> None:
    """Raises FileExistsError unless a folder of that name could be made: it must not exist, or be empty and not `.`."""
    check_name(output)
    if output.resolve() == Path.cwd():  # who stands in it would stand in the folder that it replaced
        raise FileExistsError(f"{output} is the folder that this runs in; choose another output.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not an empty folder; choose another output or remove it.")


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `output` when the block ends, and is removed if the block fails.

    Raises:
        FileExistsError: if the output has something in it, before or after.
        OSError: for a full disk or a limit on the size of files, naming the folder.
    """
    check_output(output)
    output = output.resolve()  # a link to an empty folder is filled where it leads
    output.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(output)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        with open(staging / f"{_LOCK}-new", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # dies with the process
            os.rename(lock.name, staging / _LOCK)  # nobody sees it unlocked
            yield staging
            os.chmod(staging, _usual_mode(staging))
            try:
                os.rename(staging, output)  # onto an empty folder, too, and onto nothing else
            except OSError as error:
                raise FileExistsError(
                    f"{output} was filled by another run meanwhile: nothing is overwritten."
                ) from error
            (output / _LOCK).unlink()
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what = "no file may grow further in" if error.errno == errno.EFBIG else "the disk is full at"
            raise OSError(error.errno, f"{what} {output.parent}; nothing was left there") from error
        raise


def _usual_mode(folder: Path) -> int:
    """What a new folder may be used for under the umask, which can only be read by changing it for all threads."""
    sample = folder / ".mode"
    sample.mkdir()
    mode = sample.stat().st_mode & 0o777
    sample.rmdir()
    return mode


def _remove_abandoned(output: Path) -> None:
    """Removes staging folders of this output whose process is gone."""
    for folder in output.parent.glob(f".{glob.escape(output.name)}-????????"):
        with contextlib.suppress(OSError), open(folder / _LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
