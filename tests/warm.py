"""A process that has torch and the package imported and does nothing but fork: a program in a fork starts at once.

`Warm` starts it and asks it. It reads requests as lines of JSON on stdin, runs each in a child of its own and answers
with {"code", "out", "err"}; code is "hang" for a child that did not end in time. It never computes anything itself:
libraries that have started threads do not survive a fork.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

MEMORY = 12 << 30  # address space of a child: what wants more is refused by the system, as on a small machine

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Warm:
    """The process, asked for one program after the other."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ONE_THREAD, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        )

    def run(self, argv, cwd, seconds=120, room=1 << 40, program=None, environment=None, until=None):
        """Exit code or "hang", stdout, stderr.

        Args:
            argv: of the command line, or of `program`, a Python file.
            cwd: where it runs.
            seconds: after so many it is killed.
            room: bytes beyond which no file of it may grow: a full disk.
            environment: what it has beside the variables of this process.
            until: a pattern of paths below `cwd`; when a new one is there, it is killed.
        """
        request = {"argv": argv, "cwd": str(cwd), "seconds": seconds, "room": room}
        request |= {"program": program, "environment": environment or {}, "until": until}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["out"], answer["err"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


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


def run(request: dict) -> dict:
    """One program in a child (see `Warm.run`)."""
    cwd, until = Path(request["cwd"]), request["until"]
    already = set(cwd.glob(until)) if until else set()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            in_child(request, out.fileno(), err.fileno())
        code = wait(child, request["seconds"], lambda: bool(until) and not set(cwd.glob(until)) <= already)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"code": code, "out": texts[0], "err": texts[1]}


def in_child(request: dict, out: int, err: int) -> None:
    """Runs a program as a new process would, and ends."""
    code = 99
    try:
        os.setpgid(0, 0)
        os.chdir(request["cwd"])
        os.environ.update(request["environment"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.argv = [request["program"] or "sr-transformers", *request["argv"]]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["room"], request["room"]))
        if request["program"]:
            sys.path.insert(0, request["cwd"])
            runpy.run_path(request["program"], run_name="__main__")
            code = 0
        else:
            from sr_transformers.cli import main

            code = main(request["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float, enough: Callable[[], bool]) -> int | str:
    """Exit code of a child (negative: killed by that signal), or "hang" after killing it; killed when it is enough."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if enough():
            os.killpg(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hang"


def serve() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print while they are imported is no answer
    warm_up()
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)
    os._exit(0)  # nothing is left to do, and modules by the thousand take seconds to go


if __name__ == "__main__":
    serve()
