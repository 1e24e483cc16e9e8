"""The demo page, Spaces and publishing: what they are given beside a model."""

from bad_inputs.row import FLAG, Row, flip, write

SPACE = "demo RUN --titles t.csv --space o"


def _titles(id: str, what: str, content: str | bytes, says: str = r"t\.csv") -> Row:
    return Row(id, what, SPACE, says, write("t.csv", content))


NO_ROOM = r"no room is left on the disk of (\S*/)?o.*Make room; the same command"
FULL = "no file may grow further in|no room is left"
ROWS = [
    Row("E031", "train: disk full at the weights", FLAG, NO_ROOM, makes=("o",), room=10_000),
    Row("E032", "train: disk full at the optimizer", FLAG, NO_ROOM, makes=("o",), room=25_000),
    Row("E033", "prepare: disk full", "prepare LOG --output o", FULL, room=5_000),
    Row("E034", "evaluate --json: disk full", "evaluate --data DATA --json x.json", r"x\.json: File too large", room=5_000),
    Row("E035", "publish --dry-run: disk full", "publish RUN a/b --dry-run --output o", FULL, room=9_000),
    Row("E036", "export: disk full", "export --model RUN --output o -k 5", FULL, room=9_000),
    Row("E037", "a Space: disk full", "demo RUN --space o", FULL, room=300),
    Row("F008", "no titles", SPACE, r"t\.csv"),
    _titles("F009", "titles: empty", ""),
    _titles("F010", "titles: no such columns", "a,b\n1,2\n", "item_id"),
    _titles("F011", "titles: a column is missing", "item_id\ni1\n", "title"),
    _titles("F014", "titles: unclosed quote", 'item_id,title\ni1,"a\ni2,b\n'),
    _titles("F015", "titles: not UTF-8", b"item_id,title\ni1,caf\xe9\n"),
    _titles("F016", "titles: binary", b"\x00\x01\xff\xfe" * 300),
    Row("F017", "titles: a folder", "demo RUN --titles e --space o", "e", write("e/x", "x")),
    Row("F018", "titles: an unknown ending", "demo RUN --titles t.doc --space o", r"t\.doc", write("t.doc", "x")),
    Row("F019", "titles: parquet that is text", "demo RUN --titles t.parquet --space o", r"t\.parquet",
        write("t.parquet", "hello")),
    Row("F020", "a Space of nothing", "demo nowhere --space o", "nowhere"),
    Row("F021", "a Space into what exists", "demo RUN --space e", "e", write("e/mine.txt", "mine")),
    Row("F023", "a study that is not there", "demo RUN --study nowhere --space o", "nowhere"),
    Row("F024", "a page over users of nothing", "demo RUN --data nowhere --port 7999", "nowhere"),
    Row("F025", "users in a Space", "demo RUN --data DATA --space o", "--data"),
    Row("F026", "a page over a log that was changed", "demo RUN --data d --port 7999", r"histories\.arrow",
        flip("d/histories.arrow")),
    Row("F027", "--port of a Space", "demo RUN --space o --port 7999", "--port says where a page is served"),
    Row("F028", "--host of a Space", "demo RUN --space o --host 127.0.0.1", "--host says where a page is served"),
    Row("A225", "--port 99999999", "demo RUN --port 99999999", "--port 99999999"),
    Row("A226", "--port -1", "demo RUN --port -1", "--port -1"),
    Row("A227", "--port x", "demo RUN --port x", "--port"),
    Row("A234", "--host no.such.host.invalid", "demo RUN --host no.such.host.invalid", "no.such.host.invalid"),
    Row("A235", "a page of nothing", "demo nowhere --port 7999", "nowhere"),
    Row("G001", "publish --output without --dry-run", "publish RUN a/b --output o", "--dry-run"),
    Row("G002", "a size that is none", "publish RUN a/b --dry-run --output o --max-shard-size big", "max.shard.size|big"),
    Row("G003", "a scaling study that is none", "publish RUN a/b --dry-run --output o --scaling nowhere", "nowhere"),
    Row("G005", "--scaling-repo without --scaling", "publish RUN a/b --dry-run --output o --scaling-repo a/c", "add --scaling"),
    Row("G004", "other needs a name", "publish RUN a/b --dry-run --output o --license other", "license"),
    Row("N125", "data publish without a license", "data publish DATA a/b --dry-run o", "--license"),
    Row("N126", "data publish: other needs a name", "data publish DATA a/b --dry-run o --license other", "license"),
    Row("N127", "data publish under no name", "data publish DATA nonsense --dry-run o --license mit", "nonsense"),
    Row("N128", "data publish of nothing", "data publish nowhere a/b --dry-run o --license mit", "nowhere"),
    Row("N129", "data publish into what exists", "data publish DATA a/b --dry-run e --license mit", "e",
        write("e/mine.txt", "mine")),
    Row("N130", "data publish: a file was changed", "data publish d a/b --dry-run o --license mit", r"test\.arrow",
        flip("d/test.arrow", 0.99, 2)),
    Row("N131", "data publish: disk full", "data publish DATA a/b --dry-run o --license mit", FULL, room=300),
]  # fmt: skip
