"""Plants one-line faults in the modules on which every number rests, and counts those that the quick tests notice.

mutmut makes the faults and runs each in a process forked from a warm one; every module meets its own tests alone,
slow tests left out. It changes functions, but no constants of a module and nothing decorated.
`tests/mutants.md` is written by this file; only the reasons that stand there are written by people, and they are kept.

    python tests/mutants.py [scaling/laws/forms ...]      all modules if none is named; goes on where it was stopped
    python tests/mutants.py --dated                       the modules that, or whose tests, have changed since
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "tests" / "mutants.md"
WORK = ROOT / "runs" / "mutants"
MODULES = (
    "evaluation/ranking",
    "evaluation/metrics",
    "lsrm/loss_lsrm",
    "data/packing",
    "data/splits",
    "scaling/laws/forms",
    "scaling/laws/fitting",
    "scaling/laws/prediction",
)
LEAST = 0.85
UNEXPLAINED = "Not explained yet."
# mutmut's exit codes. Missed: pytest passed, or no test reaches the function. Stopped: after a time limit, as a loop
# without end is. Any other end is a test that failed.
MISSED, STOPPED = {0, 5, 33}, {-24, 24, 36, 152, 255}

# {module: {fault: reason}}; a fault is "function\n-line\n+line".
Reasons = dict[str, dict[str, str]]
# {module: (killed, of them by the time limit, all, digest of the files)}
Counts = dict[str, tuple[int, int, int, str]]


def test_files(module: str) -> list[Path]:
    """Of its name, and of longer ones if the tests of a module are more than one file holds."""
    room, _, name = module.rpartition("/")
    folder = Path("tests") / room
    more = sorted((ROOT / folder).glob(f"test_{name}_*.py"))
    return [folder / f"test_{name}.py", *(path.relative_to(ROOT) for path in more)]


def digest(module: str) -> str:
    """Of a module and its tests, as they are."""
    files = [ROOT / "src" / "sr_transformers" / f"{module}.py", *(ROOT / path for path in test_files(module))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:10]


def run(module: str, processes: int, survivors: bool) -> dict[str, int]:
    """Exit code of every mutant of a module; those known from a run that was stopped are not tried again.

    Args:
        survivors: try those that survived the last run again, and leave it at that for the others: tests were added.
    """
    folder = WORK / module
    source = ROOT / "src" / "sr_transformers" / f"{module}.py"
    meta = folder / "mutants" / "src" / "sr_transformers" / f"{module}.py.meta"
    command = [mutmut(), "run", "--max-children", str(processes)]
    options = {
        "source_paths": "src/",
        "only_mutate": source.relative_to(ROOT),
        "pytest_add_cli_args_test_selection": "\n    ".join(
            ["", *map(str, test_files(module)), "-m", "not slow and not gpu"]
        ),
        # Seconds of a clock on the wall: a minute and more, since other programs may use the cores as well.
        "timeout_constant": 20,
        "timeout_multiplier": 4,
    }
    setup = "\n".join(["[mutmut]", *(f"{name} = {value}" for name, value in options.items()), ""])
    parts = [version("mutmut").encode(), setup.encode(), *(path.read_bytes() for path in read_by(module))]
    stamp = hashlib.sha256(b"".join(parts)).hexdigest()
    known = codes_in(meta) if survivors else {}
    if known:
        command += [mutant for mutant, code in known.items() if code in MISSED]
        (folder / "setup.cfg").write_text(setup)  # the tests may be more files now
    elif not (folder / "stamp").exists() or (folder / "stamp").read_text() != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("src", "tests", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "setup.cfg").write_text(setup)
    (folder / "stamp").write_text(stamp)
    log = folder / "log"
    with log.open("w") as output:
        code = subprocess.run(command, cwd=folder, stdout=output, stderr=output, env=environment()).returncode
    codes = codes_in(meta)
    if known:  # with other files of tests mutmut forgets all that it is not asked for now
        codes = {name: known.get(name) if now is None else now for name, now in codes.items()}
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "exit_code_by_key": codes}))
    if code or not codes or None in codes.values() or 2 in codes.values():
        sys.exit(f"{module}: mutmut did not come to its end; see {log}, then give the same command again.")
    return codes


def read_by(module: str) -> list[Path]:
    """What a result depends on: the module, its tests, the tests from which these import, and the fixtures."""
    tests = [ROOT / path for path in test_files(module)]
    others = [
        path.parent / f"{name}.py"
        for path in tests
        for name in re.findall(r"^from (test_\w+) import", path.read_text(), re.M)
    ]
    return [ROOT / "src" / "sr_transformers" / f"{module}.py", ROOT / "tests" / "conftest.py", *tests, *others]


def codes_in(meta: Path) -> dict[str, int]:
    return json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else {}


def mutmut() -> str:
    return str(Path(sys.executable).with_name("mutmut"))


def environment() -> dict[str, str]:
    """No PYTHONPATH, or the source as it stands would be tested; one thread, since processes are what runs at once."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "OMP_NUM_THREADS": "1"}


def faults(module: str, mutants: list[str]) -> list[str]:
    """The function that each mutant changes, and its changed lines."""
    program = """
import json, sys
from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant
print(json.dumps([get_diff_for_mutant(mutant, path=find_mutant(mutant).path) for mutant in sys.argv[1:]]))
"""
    command = [sys.executable, "-c", program, *mutants]
    shown = subprocess.run(command, cwd=WORK / module, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = []
    for mutant, diff in zip(mutants, json.loads(shown), strict=True):
        lines = [line for line in diff.splitlines() if re.match(r"[-+](?![-+]{2})", line)]
        function = re.sub(r"__mutmut_\d+$", "", mutant.rsplit(".", 1)[1]).removeprefix("x_").removeprefix("xǁ")
        found.append("\n".join([function.replace("ǁ", "."), *(line[0] + " " + line[1:].strip() for line in lines)]))
    return found


def read_reasons(text: str) -> Reasons:
    """What `write` wrote: reasons stand above the faults that they explain."""
    reasons: Reasons = {}
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        module, _, body = part.partition("\n")
        for reason, faults in re.findall(r"(.*?)\n\n```diff\n(.*?)\n```\n", body, flags=re.S):
            for one in faults.split("\n\n"):
                reasons.setdefault(module, {})[one] = " ".join(reason.split())
    return reasons


def write(counts: Counts, reasons: Reasons) -> str:
    """The report: what was counted of every module, and the survivors by reason."""
    lines = [
        "# Mutants",
        "",
        "Written by `make mutants` (see `mutants.py`); the reasons are kept from one run to the next. One-line faults,",
        "made by mutmut in functions, and how many of them a module's own quick tests notice; those that they do not",
        "notice follow, each with the reason. `files` says which state of a module and its tests was counted:",
        "`python tests/mutants.py --dated` names those that have changed since, and whose row is to be counted again.",
        "",
        "| module | tests | mutants | killed | of them by the time limit | share | files |",
        "|---|---|---|---|---|---|---|",
    ]
    for module, (killed, stopped, total, files) in counts.items():
        share = f"{100 * killed / total:.1f} %"
        lines.append(f"| {module} | {test_files(module)[0]} | {total} | {killed} | {stopped} | {share} | {files} |")
    for module, of_module in reasons.items():
        if not of_module:
            continue
        lines += ["", f"## {module}"]
        for reason in sorted(set(of_module.values())):
            faults = "\n\n".join(one for one, why in of_module.items() if why == reason)
            lines += ["", reason, "", "```diff", faults, "```"]
    return "\n".join([*lines, ""])


def read_counts(text: str) -> Counts:
    """As `write` takes them."""
    row = r"^\| (\w+(?:/\w+)+) \| \S+ \| (\d+) \| (\d+) \| (\d+) \| \S+ % \| (\w+) \|"
    found = re.findall(row, text, flags=re.M)
    return {module: (int(killed), int(stopped), int(total), files) for module, total, killed, stopped, files in found}


def dated(text: str) -> list[str]:
    """The modules of a report that are no longer what was counted."""
    return [module for module, (*_, files) in read_counts(text).items() if files != digest(module)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults planted in the code, and how many the quick tests notice.")
    parser.add_argument("modules", nargs="*", choices=[[], *MODULES], default=[], metavar="module")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--survivors", action="store_true", help="only those of the last run once more: tests came")
    parser.add_argument("--dated", action="store_true", help="name the modules that have changed, and count nothing")
    options = parser.parse_args()
    if options.dated:
        print("\n".join(dated(REPORT.read_text())))
        return
    for module in options.modules or MODULES:
        codes = run(module, options.processes, options.survivors)
        missed = [mutant for mutant, code in codes.items() if code in MISSED]
        text = REPORT.read_text() if REPORT.exists() else ""
        known, counts = read_reasons(text), read_counts(text)
        before = known.get(module, {})
        known[module] = {one: before.get(one, UNEXPLAINED) for one in faults(module, missed)}
        killed, total = len(codes) - len(missed), len(codes)
        counts[module] = (killed, sum(code in STOPPED for code in codes.values()), total, digest(module))
        REPORT.write_text(write(*({name: it[name] for name in MODULES if name in it} for it in (counts, known))))
        print(f"{module}: {killed} of {total} killed{'' if killed >= LEAST * total else f', less than {LEAST:.0%}'}")
    if UNEXPLAINED in REPORT.read_text():
        sys.exit(f"{REPORT}: survivors without a reason. Write a test that notices them, or say why none can.")


if __name__ == "__main__":
    main()
