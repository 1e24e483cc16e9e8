"""`--json` of every command: the place is looked at first, and the document is there before a word is printed."""

import json

import pytest

from sr_transformers.cli import build_parser, documents, evaluate, main


@pytest.fixture
def reader_gone(monkeypatch):
    """A terminal that closes with the first line."""

    def broken(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("builtins.print", broken)


def test_reports_are_written_before_anything_is_printed(prepared, tmp_path, reader_gone):
    options = build_parser().parse_args(["evaluate", "--data", str(prepared.path), "--json", str(tmp_path / "x.json")])
    with pytest.raises(BrokenPipeError):
        evaluate._evaluate(options, [])
    assert [one["model"] for one in json.loads((tmp_path / "x.json").read_text())] == [
        "popularity",
        "user frequency",
        "markov",
        "recent popularity",
        "mix",
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "--size", "98k", "--items", "100"],
        ["data", "describe", "{data}"],
        ["tasks", "--data", "{data}", "--task", "overall", "--draws", "2"],
        ["scaling", "fit", "{points}", "--law", "n", "--bootstrap", "2"],
        ["scaling", "predict", "{points}", "--law", "n", "--bootstrap", "2"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_documents_of_other_commands_too(command, prepared, tmp_path, monkeypatch):
    points = tmp_path / "points.csv"
    points.write_text("N,loss\n" + "".join(f"{n},{2 + 30 / n**0.5}\n" for n in (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)))
    command = [word.format(data=prepared.path, points=points) for word in command]
    options = build_parser().parse_args([*command, "--json", str(tmp_path / "x.json")])
    said = []
    monkeypatch.setattr("builtins.print", lambda *_, **__: said.append((tmp_path / "x.json").is_file()))
    options.run(options, [])
    assert said
    assert all(said)
    assert json.loads((tmp_path / "x.json").read_text())


@pytest.mark.parametrize("command", ["evaluate", "tasks", "data describe"])
@pytest.mark.parametrize(("place", "message"), [("none/x.json", "make it first"), ("", "is a folder")])
def test_a_place_that_is_none_is_refused_before_the_work(command, place, message, tmp_path, capsys):
    words = command.split()
    data = ["--data", str(tmp_path / "no-data")] if command != "data describe" else [str(tmp_path / "no-data")]
    assert main([*words, *data, "--json", str(tmp_path / place)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "--json" in error


def test_a_folder_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents.os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="you may not write there"):
        documents.check_place(str(tmp_path / "x.json"))


def test_no_name_is_no_document():
    documents.check_place(None)
    documents.write_document(None, {})


def test_what_is_read_is_not_written_over_but_an_earlier_document_is(tmp_path):
    (tmp_path / "run").mkdir()
    table, ours, other = tmp_path / "t.csv", tmp_path / "run" / "ours.json", tmp_path / "run" / "run.json"
    table.write_text("N,D\n")
    ours.write_text('[{"protocol": {}, "more": 1}]')
    other.write_text('{"name": "x"}')
    reads = (str(table), str(tmp_path / "run"), "org/name")
    for name in (table, other):
        with pytest.raises(FileExistsError, match=f"--json {name} is a file that this command reads; choose another"):
            documents.check_place(str(name), reads, ["protocol"])
    with pytest.raises(FileExistsError, match="is a file that this command reads"):
        documents.check_place(str(ours), [str(ours)], ["protocol"])
    for name in (ours, tmp_path / "run" / "new.json", tmp_path / "new.json"):
        documents.check_place(str(name), reads, ["protocol"])
    other.write_text("[")
    with pytest.raises(FileExistsError, match="is a file that this command reads"):
        documents.check_place(str(other), reads, ["protocol"])


def test_a_folder_of_figures_is_no_file_and_lies_below_none(tmp_path):
    (tmp_path / "f").write_text("mine")
    for name in (tmp_path / "f", tmp_path / "f" / "deep" / "er"):
        with pytest.raises(NotADirectoryError, match=f"--figures {name}: {tmp_path / 'f'} is a file"):
            documents.check_figures(str(name))
    for one in (None, str(tmp_path), str(tmp_path / "new" / "er")):
        documents.check_figures(one)
