"""Scripts of this repository that belong to no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent


def script(path: str | Path) -> ModuleType:
    """The script at a path below the root, run once more each time. Others can import it by its name from then on."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
