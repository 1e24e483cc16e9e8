"""An option stands once and has its whole name; the namespace knows which ones were given."""

import argparse
import dataclasses

import pytest

from sr_transformers.cli import build_parser
from sr_transformers.cli.parser import Help, Parser
from sr_transformers.evaluation.tasks.task import TaskOptions


def parsers(parser, name=()):
    """A parser and those below it, by the words of their command."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, one in action.choices.items():
                yield from parsers(one, (*name, word))


EVERY = dict(parsers(build_parser()))
SINGLE = [
    (name, action)
    for name, parser in EVERY.items()
    for action in parser._actions
    if action.option_strings and isinstance(action, argparse._StoreAction)
]


@pytest.mark.parametrize(
    ("name", "action"), SINGLE, ids=lambda one: " ".join(one) if isinstance(one, tuple) else one.dest
)
def test_every_option_with_one_value_is_refused_twice(name, action, capsys):
    word = next(iter(action.choices or ("3",)))
    word = "1h" if action.dest == "budget" else word
    with pytest.raises(SystemExit):
        build_parser().parse_args([*name, *[action.option_strings[0], word] * 2])
    assert f"{action.option_strings[0]} is given twice; keep one." in capsys.readouterr().err


def test_no_command_takes_the_beginning_of_an_option(capsys):
    assert not [name for name, parser in EVERY.items() if parser.allow_abbrev]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["recommend", "--mod", "m", "--history", "i"])
    assert "required: --model" in capsys.readouterr().err


def test_what_was_given_is_known_and_what_may_be_repeated_still_may():
    parser = Parser()
    parser.add_argument("--one", default="1")
    parser.add_argument("--many", action="append")
    assert parser.parse_args([]).given == set()
    found = parser.parse_args(["--one", "1", "--many", "a", "--many", "b"])
    assert (found.given, found.many) == ({"one"}, ["a", "b"])


@pytest.mark.parametrize(
    ("name", "action"), SINGLE, ids=lambda one: " ".join(one) if isinstance(one, tuple) else one.dest
)
def test_help_says_what_an_option_is_if_it_is_left_out(name, action):
    """A number that changes results must not have to be looked up in the code."""
    if action.default in (None, [], argparse.SUPPRESS):
        return
    said = Help("x")._get_help_string(action)
    assert "left out)" in said or "default" in said
    assert action.help, f"{name} {action.option_strings} has no help at all, and argparse then shows nothing"


def test_help_of_tasks_says_what_the_options_are():
    actions = {action.dest: action.help for name, action in SINGLE if name == ("tasks",)}
    options = TaskOptions()
    for one in dataclasses.fields(TaskOptions):
        dest = {"ks": "k"}.get(one.name, one.name)
        value = getattr(options, one.name)
        if dest in actions and value is not None:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert f"({shown} if left out)" in actions[dest]
