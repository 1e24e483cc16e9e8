import math

import pytest

from sr_transformers.training.yaml_reader import MAX_BYTES, parse_yaml, read_yaml

LAUGHS = "\n".join(
    ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    + [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("010", 10),  # 8 in YAML 1.1
        ("0x1F", 31),
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("no", "no"),  # false in YAML 1.1
        ("on", "on"),
        ("False", False),
        ("2020-01-01", "2020-01-01"),
        ("'7'", "7"),
        ("", None),
        ("~", None),
        ("{1: a, null: b, no: c}", {"1": "a", "null": "b", "no": "c"}),
        ("a: &x {p: 1, q: 1}\nb:\n  <<: *x\n  q: 2", {"a": {"p": 1, "q": 1}, "b": {"p": 1, "q": 2}}),
    ],
)
def test_values_are_those_of_yaml_1_2_and_keys_are_texts(text, value):
    assert parse_yaml(text, "here") == value


def test_nan_is_a_number():
    assert math.isnan(parse_yaml(".nan", "here"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3", "line 5, column 3: c stands twice, the first time in line 3; keep one"),
        ("{[1]: 2}", "line 1, column 2: a key is a list or a mapping"),
        ("? {a: 1}\n: 2", "a key is a list or a mapping"),
        (
            "a: !!python/object/apply:os.system ['touch marker']",
            r"line 1, column 4: the tag !!python/object/apply:os.s",
        ),
        ("a: !!python/name:os.system", "the tag !!python/name:os.system is not read; write a plain value"),
        ("a: !!int x", "the tag !!int is not read"),
        ("a: !mine 1", "the tag !mine is not read"),
        ("a:\n\tb: 1", "line 2, column 1: .* YAML indents with spaces, never with tabs"),
        ("a: 1\n---\nb: 2", r"line 2, column 1: a second document begins here \(---\)"),
        ("a: [1\nb: 2", "line 2, column 2: this is no YAML: while parsing a flow sequence that begins in line 1"),
        ("a: 'x", "this is no YAML: while scanning a quoted scalar that begins in line 1"),
        ("a: *b", "line 1, column 4: found undefined alias 'b'"),
        ("a: &a [*a]", "an alias stands for what it is a part of"),
        (LAUGHS, "the aliases unfold into more than 100,000 values; write them out"),
        ("[" * 5000, "is nested too deeply"),
        ("a: \x00", "is no YAML: unacceptable character #x0000"),
        ("9" * 5000, "holds a number that is too long to be read"),
    ],
)
def test_refusals_name_the_file_and_the_line(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        read_yaml(path)
    assert str(path) in str(refusal.value)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1".encode("utf-16"), r"r.yaml is no text in UTF-8 \(byte 0xff at 0\); save it as UTF-8"),
        (b"name: caf\xe9", r"\(byte 0xe9 at 9\)"),
        (b"a" * (MAX_BYTES + 1), r"r.yaml has 1,048,577 bytes; .* Is it the right file\?"),
    ],
)
def test_files_that_are_no_text_are_named(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_yaml(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(path) == {"a": 1}


def test_a_value_of_the_command_line_has_no_lines():
    with pytest.raises(ValueError, match=r"^--seed: this is no YAML"):
        parse_yaml("[1", "--seed")
