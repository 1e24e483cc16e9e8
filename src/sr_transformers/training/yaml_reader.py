"""YAML as recipes, studies and the command line write it: read strictly, and refused in words that name file and line.

Values are those of YAML 1.2, with 1e-3 a number: `no`, `on` and `1:30` are texts and 010 is ten, where YAML 1.1 reads
a truth value, ninety and eight. Keys are texts as they stand in the file. Refused: a key that stands twice, a key that
is no text, tags (`!!python/...`), a second document, and aliases (`*name`) that unfold a page into a mountain.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from sr_transformers.messages import one_line

MAX_BYTES = 1 << 20  # of a file; recipes have a few hundred
MAX_VALUES = 100_000  # once aliases are written out

_TAG = "tag:yaml.org,2002:"
# What a plain word can be; other words are texts.
_RESOLVERS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?\d+|0x[\da-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.\d+|\d+\.\d*)([eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}


class _Loader(yaml.SafeLoader):
    """The values and refusals of this file; everything else as in PyYAML's safe loader."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise _refusal(f"the tag {tag.replace(_TAG, '!!')} is not read; write a plain value", event)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key is a list or a mapping; keys are single words", key)
            if key.value in lines:
                raise _refusal(f"{key.value} stands twice, the first time in line {lines[key.value]}; keep one", key)
            lines[key.value] = key.start_mark.line + 1
            if key.tag != f"{_TAG}merge":
                key.tag = f"{_TAG}str"  # as it is written: `1` and `null` are names too
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 16) if "0x" in text else int(text)


_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
for _name, (_pattern, _first) in _RESOLVERS.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, None if it is empty.

    Raises:
        ValueError: if it cannot be read; the message names the file, the line and what to change.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"{path} has {size:,} bytes; a YAML of settings has at most {MAX_BYTES:,}. Is it the right file?"
        )
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 (byte {content[error.start]:#04x} at {error.start}); save it as UTF-8."
        ) from error
    return _parse(text, str(path), in_file=True)


def parse_yaml(text: str, where: str) -> Any:
    """What a text in YAML says; `where` it stands, for messages: an option of the command line.

    Raises:
        ValueError: if it cannot be read, see the head of this file.
    """
    return _parse(text, where, in_file=False)


def _parse(text: str, where: str, in_file: bool) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _unfolded(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if in_file and mark else where
        raise ValueError(f"{place}: {_reason(error)}.") from error
    except yaml.YAMLError as error:  # characters that YAML forbids
        raise ValueError(f"{where} is no YAML: {one_line(str(error))}.") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply; settings are a few levels deep.") from error
    except ValueError as error:  # digits by the thousand
        raise ValueError(f"{where} holds a number that is too long to be read: {error}.") from error


def _unfolded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Values below a node, each alias counted with all that it stands for. `sizes` holds those of finished nodes."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:  # not finished: it is inside of itself
            raise _refusal("an alias stands for what it is a part of; write the values out", node)
        return sizes[id(node)]
    sizes[id(node)] = 0
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for one in node.value:
            for part in one if isinstance(one, tuple) else (one,):
                total += _unfolded(part, sizes)
                if total > MAX_VALUES:
                    raise _refusal(f"the aliases unfold into more than {MAX_VALUES:,} values; write them out", node)
    sizes[id(node)] = total
    return total


def _refusal(problem: str, at: Any) -> yaml.MarkedYAMLError:
    """A refusal of a node or an event of PyYAML."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _reason(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or "it cannot be read").replace("'<stream end>'", "the end")
    if "'\\t'" in problem:
        return f"{problem}; YAML indents with spaces, never with tabs"
    if "expected a single document" in (error.context or ""):
        return "a second document begins here (---); there can be only one"
    if error.context is None or error.context_mark is None:
        return problem
    return f"this is no YAML: {error.context} that begins in line {error.context_mark.line + 1}, {problem}"
