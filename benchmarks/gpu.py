"""python benchmarks/gpu.py --minutes 9 --output DIR: what one GPU does with this library, in one command.

Needs torch, transformers and this package with what it depends on (from a clone: PYTHONPATH=src), and no network. Uses
flash-attn, liger-kernel and cut-cross-entropy where they are installed. Parts, the most valuable first:

    exactness    packed users under every attention, against the loop over users in float64
    training     targets/s, MFU and peak memory beside the plan's, at 9m, 75m and 800m
    packing      packed against padded rows on histories as short as Amazon's
    loss         the loss alone, against torch's, Liger's and cut-cross-entropy
    ranking      full ranking, and p50 and p99 of serving
    vocabulary   the most items that train

Each part is a process of its own with a limit for each case. A case that fails or takes too long is a row with its
reason, and the part goes on with the next one. DIR gets rows.jsonl (as it goes), summary.json, table.md and the logs of
the processes. Without a GPU: --tiny, which tries the command and measures nothing.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from gpu_parts.cases import CASES, ENDS, TINY

MARK = "::gpu:: "  # before a line of a worker that is meant for us
LOADING = 120  # seconds that a worker may take before its first case
LEAST = 5  # seconds below which no case is begun
MFU_BAR, PACKING_BAR = 0.45, 1.8
MFU_GPUS = ("H100", "H200")


class Report:
    """The rows so far, on disk after each one."""

    def __init__(self, folder: Path, options: argparse.Namespace):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows, self.machine = folder, [], {}
        self.command = {"minutes": options.minutes, "tiny": options.tiny, "only": options.only}
        self._start = time.monotonic()
        with (folder / "rows.jsonl").open("x"):  # what was measured before is not written over
            pass

    def add(self, row: dict[str, Any]) -> None:
        """Writes a row, and all that follows from the rows so far."""
        self.rows.append(row)
        with (self.folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.write()
        print(f"{row['part']:11} {_case_text(row['case'])}: {_short(row)}", flush=True)

    def write(self) -> None:
        """Writes summary.json and table.md."""
        summary = {
            "command": self.command,
            "seconds": round(time.monotonic() - self._start, 1),
            "machine": self.machine,
            "bars": bars(self.rows, self.machine),
            "rows": self.rows,
        }
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        (self.folder / "table.md").write_text(markdown(summary))


def bars(rows: list[dict[str, Any]], machine: dict[str, Any]) -> list[dict[str, Any]]:
    """What the measurements should reach, beside what they reach; `holds` is None where nothing was measured, or where
    the bar is not meant for this GPU."""
    done = [row for row in rows if row["status"] == "ok"]

    def found(part: str, key: str, **wanted: Any) -> list[Any]:
        of_part = [row for row in done if row["part"] == part and wanted.items() <= row["case"].items()]
        return [row[key] for row in of_part if row.get(key) is not None]

    exact = found("exactness", "holds")
    result = [
        {"name": "packed is exact", "value": sum(exact), "bar": len(exact), "holds": all(exact) if exact else None}
    ]
    mfu = max(found("training", "mfu", size="800m", items="26k"), default=None)
    meant = (machine.get("data_sheet") or {}).get("name") in MFU_GPUS
    holds = None if mfu is None or not meant else mfu >= MFU_BAR
    result.append(
        {"name": "MFU of 800m over 26k items, one H100 or H200", "value": mfu, "bar": MFU_BAR, "holds": holds}
    )
    for size in dict.fromkeys(row["case"]["size"] for row in rows if row["part"] == "packing"):
        speed = {
            layout: max(found("packing", "targets_per_second", size=size, layout=layout), default=None)
            for layout in ("flat", "rows", "padded")
        }
        packed = max((one for one in (speed["flat"], speed["rows"]) if one is not None), default=None)
        ratio = None if packed is None or speed["padded"] is None else packed / speed["padded"]
        holds = None if ratio is None or size == "tiny" else ratio >= PACKING_BAR
        name = f"packed over padded, {size}, lengths like Amazon's"
        result.append({"name": name, "value": ratio, "bar": PACKING_BAR, "holds": holds})
    return result


def markdown(summary: dict[str, Any]) -> str:
    """The rows as tables, a part each, below the machine and the bars."""
    machine = summary["machine"]
    versions = ", ".join(f"{name} {one}" for name, one in machine.get("versions", {}).items() if one)
    lines = [f"{machine.get('device', 'no device')}; {versions}; commit {machine.get('commit')}", ""]
    if summary["command"]["tiny"]:
        lines += ["Tiny sizes: these numbers say that the command runs, and nothing of its speed.", ""]
    lines += ["| bar | reached | to reach | holds |", "|---|---|---|---|"]
    for bar in summary["bars"]:
        holds = {True: "yes", False: "no", None: "not measured here"}[bar["holds"]]
        lines.append(f"| {bar['name']} | {_number(bar['value'])} | {_number(bar['bar'])} | {holds} |")
    for part in CASES:
        rows = [row for row in summary["rows"] if row["part"] == part]
        hidden = ("part", "case", "status", "reason", "seconds")
        keys = list(dict.fromkeys(key for row in rows for key in row if key not in hidden))
        if rows:
            lines += ["", f"## {part}", "", "| case | " + " | ".join([*keys, "note"]) + " |"]
            lines += ["|---" * (len(keys) + 2) + "|"]
        for row in rows:
            note = "" if row["status"] == "ok" else f"{row['status']}: {row['reason']}".replace("|", "/")
            values = [_number(row.get(key)) for key in keys]
            lines.append(f"| {_case_text(row['case'])} | " + " | ".join([*values, note]) + " |")
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _case_text(case: dict[str, Any]) -> str:
    shown = {key: value for key, value in case.items() if key != "limit"}
    return ", ".join(f"{key} {value}" if not isinstance(value, str) else value for key, value in shown.items())


def _short(row: dict[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['status']} ({row['reason']})"
    shown = [key for key in ("holds", "mfu", "targets_per_second", "ms", "users_per_second", "p50_ms", "p99_ms",
                             "largest_items") if row.get(key) is not None]  # fmt: skip
    return ", ".join(f"{key} {_number(row[key])}" for key in shown)


def command_of(part: str, cases: list[dict[str, Any]], tiny: bool) -> list[str]:
    """What starts a worker."""
    command = [sys.executable, __file__, "--worker", part, "--cases", json.dumps(cases)]
    return [*command, "--tiny"] if tiny else command


class Worker:
    """A process that measures some cases of a part and says so line by line."""

    def __init__(self, part: str, cases: list[dict[str, Any]], tiny: bool, log: Path):
        self._log = log
        with log.open("a") as file:
            self._process = subprocess.Popen(
                command_of(part, cases, tiny),
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,  # with the processes that compile for it
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                self._lines.put(line.removeprefix(MARK))
        self._lines.put(None)

    def next(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None at the end of the process.

        Raises:
            TimeoutError: if none comes in this time.
        """
        try:
            line = self._lines.get(timeout=max(seconds, 0.01))
        except queue.Empty:
            raise TimeoutError from None
        return None if line is None else json.loads(line)

    def end(self) -> str:
        """Ends the process if it lives; returns how it ended, or the last that it wrote."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        written = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"the process ended with {code}: {written[-1].strip() if written else 'it wrote nothing'}"


def run_part(part: str, cases: list[dict[str, Any]], end: float, report: Report) -> None:
    """All cases of a part until `end` (of the monotonic clock), with a new process after each one that was lost."""
    rest = list(cases)
    while rest and time.monotonic() + LEAST < end:
        rest = _attempt(part, rest, end, report)
    for case in rest:
        report.add({"part": part, "case": case, "status": "no time", "reason": "the part's time was over"})


def _attempt(part: str, cases: list[dict[str, Any]], end: float, report: Report) -> list[dict[str, Any]]:
    """Cases in one process; returns those that are left when it is gone."""
    worker = Worker(part, cases, report.command["tiny"], report.folder / f"{part}.log")
    done, begun = 0, False
    limit = min(LOADING, end - time.monotonic())
    try:
        while done < len(cases):
            message = worker.next(limit)
            if message is None:
                raise EOFError
            if "machine" in message:
                report.machine = message["machine"]
            elif "begin" in message:
                left = end - time.monotonic()
                if left < LEAST:
                    return cases[done:]
                begun, limit = True, min(cases[done]["limit"], left)
            else:
                report.add({"part": part, "case": cases[done], **message["row"]})
                done, begun, limit = done + 1, False, end - time.monotonic()
    except (TimeoutError, EOFError) as error:
        if isinstance(error, EOFError):
            row = {"status": "failed", "reason": worker.end()}
        elif begun or limit == LOADING:
            row = {"status": "timed out", "reason": f"not {'done' if begun else 'loaded'} after {limit:.0f} s"}
        else:  # the part was over before it had begun
            return cases[done:]
        lost = cases[done : done + 1] if begun or done else cases  # what cannot be loaded fails for all
        for case in lost:
            report.add({"part": part, "case": case, **row})
        done += len(lost)
    finally:
        worker.end()
    return cases[done:]


def work(part: str, cases: list[dict[str, Any]], tiny: bool) -> None:
    """The other side: measures, and says so.

    Raises:
        SystemExit: without a GPU, on which full sizes would take for ever.
    """
    import importlib

    sys.path.insert(0, str(Path(__file__).parent))
    common = importlib.import_module("gpu_parts.common")
    if common.DEVICE.type != "cuda" and not tiny:
        sys.exit("torch sees no GPU here; --tiny tries the command on a CPU.")
    measure = importlib.import_module(f"gpu_parts.{part}").measure

    def say(message: dict[str, Any]) -> None:
        print(MARK + json.dumps(message), flush=True)

    say({"machine": common.machine()})
    for index, case in enumerate(cases):
        say({"begin": index})
        common.clean()
        start = time.perf_counter()
        try:
            row = {"status": "ok", **measure(case)}
        except Exception as error:
            text = " ".join(str(error).split())
            row = {"status": "failed", "reason": f"{type(error).__name__}: {text[:200]}"}
        say({"row": {**row, "seconds": round(time.perf_counter() - start, 2)}})


def main() -> None:
    """Measures all parts and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything together")
    parser.add_argument("--output", type=Path, help="a new folder")
    parser.add_argument("--only", nargs="+", choices=list(CASES), metavar="PART", help="these parts only")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on a CPU too: tries the command")
    parser.add_argument("--worker", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--cases", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, json.loads(options.cases), options.tiny)
        return
    if options.output is None:
        parser.error("--output is missing: give a new folder.")
    if not options.minutes > 0:
        parser.error(f"--minutes is {options.minutes}; give a number above 0.")
    try:
        report = Report(options.output, options)
    except FileExistsError:
        parser.error(f"{options.output} holds rows.jsonl already; give a new folder.")
    parts = [part for part in CASES if options.only is None or part in options.only]
    start, before = time.monotonic(), dict(zip(ENDS, [0.0, *ENDS.values()], strict=False))
    # Tiny parts all take as long: what each needs is to load torch.
    shares = [1.0 if options.tiny else ENDS[part] - before[part] for part in parts]
    for index, part in enumerate(parts):
        end = start + 60 * options.minutes * sum(shares[: index + 1]) / sum(shares)
        run_part(part, (TINY if options.tiny else CASES)[part], end, report)
    report.write()
    print((report.folder / "table.md").read_text().split("\n## ")[0])


if __name__ == "__main__":
    main()
