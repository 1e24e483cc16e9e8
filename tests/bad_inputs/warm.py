"""A process that has torch and the package imported and does nothing but fork: a command in a fork starts at once.

Reads requests as lines of JSON on stdin: {"argv", "cwd", "seconds", "room"}. Runs each in a child of its own and answers with
{"code", "out", "err"}; code is "hang" for a child that did not end in time. It never computes anything itself:
libraries that have started threads do not survive a fork.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
import warnings

MEMORY = 12 << 30  # address space of a child: what wants more is refused by the system, as on a small machine


def warm_up() -> None:
    """Imports all that commands import."""
    warnings.simplefilter("ignore")
    import torch

    import sr_transformers

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(sr_transformers.__path__, "sr_transformers."):
        if not module.name.endswith("__main__") and ".hf_metrics." not in module.name:
            with contextlib.suppress(ImportError):  # an extra that is not installed
                importlib.import_module(module.name)


def run(argv: list[str], cwd: str, seconds: float, room: int) -> dict:
    """One command in a child; no file of it may grow beyond `room` bytes: a full disk."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            in_child(argv, cwd, out.fileno(), err.fileno(), room)
        code = wait(child, seconds)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"code": code, "out": texts[0], "err": texts[1]}


def in_child(argv: list[str], cwd: str, out: int, err: int, room: int) -> None:
    """Runs a command as a new process would, and ends."""
    code = 99
    try:
        os.setpgid(0, 0)
        os.chdir(cwd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.argv = ["sr-transformers", *argv]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        from sr_transformers.cli import main

        code = main(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float) -> int | str:
    """Exit code of a child (negative: killed by that signal), or "hang" after killing it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hang"


def serve() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print while they are imported is no answer
    warm_up()
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=answers, flush=True)
    os._exit(0)  # nothing is left to do, and modules by the thousand take seconds to go


if __name__ == "__main__":
    serve()
