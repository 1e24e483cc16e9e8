"""Studies, tables of points and fits: what is read by `scaling`."""

import json

import polars as pl
from bad_inputs.row import Damage, Row, both, cut, edit, flip, set_keys, write

from sr_transformers.data.prepare import prepare

RUN = "scaling run s.yaml --output o --dry-run"
_STUDY = """
name: tiny
data: DATA
sizes: {a: [1, 8, 1], b: [1, 16, 1]}
blocks:
  main: {sizes: [a, b], epochs: [1], seeds: [1]}
"""
_TABLE = "N,D,loss\n" + "".join(
    f"{n},{d},{1.7 + 400 / n**0.34 + 410 / d**0.28:.6f}\n" for n in (1e6, 1e7, 1e8, 1e9) for d in (1e8, 1e9, 1e10)
)
_FIT = {
    "law": "n", "status": "ok", "params": {"E": 1.7, "A": 400.0, "alpha": 0.34}, "points": [], "data": {},
}  # fmt: skip


def study(**changed: object) -> Damage:
    """Writes s.yaml with some keys changed; values are YAML, None leaves a key out."""
    lines = [line for line in _STUDY.strip().splitlines() if line.split(":")[0] not in changed]
    if "blocks" in changed:
        lines = [line for line in lines if not line.startswith(" ")]
    lines += [f"{key}: {value}" for key, value in changed.items() if value is not None]
    return write("s.yaml", "\n".join(lines) + "\n")


def _late_log(split: str) -> Damage:
    """Prepares q, a log of which all targets of a split are of an item that training never sees."""
    ends = {"validation": ["new", "a"], "test": ["a", "new"]}[split]
    rows = [(user, item, step) for user in range(9) for step, item in enumerate(["a", "b", "c", *ends])]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return lambda here: prepare(log, here / "q")


def _study(id: str, what: str, says: str, **changed: object) -> Row:
    return Row(id, what, RUN, rf"s\.yaml.*({says})", study(**changed))


def _block(id: str, what: str, says: str, block: str, name: str = "main") -> Row:
    return _study(id, what, says, blocks=f"{{{json.dumps(name)}: {block}}}")


def _fit(id: str, what: str, more: str, says: str, table: str = _TABLE) -> Row:
    return Row(id, what, f"scaling fit t.csv {more}", says, write("t.csv", table))


def _predict(id: str, what: str, more: str, says: str, change: Damage | None = None) -> Row:
    made = write("f.json", json.dumps(_FIT))
    return Row(id, what, f"scaling predict --fit f.json {more}", says, both(made, change) if change else made)


ROWS = [
    Row("B100", "no such study", RUN, r"s\.yaml: no such study"),
    Row("B101", "a text", RUN, r"s\.yaml", write("s.yaml", "hello\n")),
    Row("B102", "no YAML", RUN, r"s\.yaml, line", write("s.yaml", "name: [\n")),
    Row("B103", "tabs", RUN, r"s\.yaml, line.*tabs", write("s.yaml", "sizes:\n\ta: [1, 8, 1]\n")),
    Row("B104", "billion laughs", RUN, r"s\.yaml, line.*unfold",
        write("s.yaml", "\n".join(["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"] + [
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]))),
    Row("B105", "a tag", RUN, r"s\.yaml, line.*the tag", study(name="!!python/name:os.system")),
    Row("B106", "a key twice", RUN, r"s\.yaml, line.*name stands twice", both(study(), edit("s.yaml", lambda one: one * 2))),
    _study("B115", "sizes is missing", "missing keys.*sizes", sizes=None),
    _study("B057", "sizes is a list", "sizes", sizes="[a, b]"),
    _study("B058", "blocks is a list", "blocks", blocks="[main]"),
    _study("B059", "an unknown key", "unknown keys.*colour", colour="red"),
    _study("B060", "a size of two numbers", "size a", sizes="{a: [1, 8]}"),
    _block("B061", "epochs nan", "epochs", "{sizes: [a], epochs: [.nan], seeds: [1]}"),
    _block("B062", "seed is a text", "seed", "{sizes: [a], epochs: [1], seeds: [one]}"),
    _block("B063", "an unknown size", "size 'z'", "{sizes: [z], epochs: [1], seeds: [1]}"),
    _block("B064", "no epochs", "epochs", "{sizes: [a], epochs: [], seeds: [1]}"),
    _block("B065", "a fraction of 2", "fraction", "{sizes: [a], epochs: [1], seeds: [1], fractions: [2]}"),
    _block("B066", "epochs without end", "epochs", "{sizes: [a], epochs: [.inf], seeds: [1]}"),
    _study("B067", "recipe is a number", "recipe", recipe="7"),
    _study("B068", "settings of unknown keys", "sed", settings="{sed: 1}"),
    _study("B069", "heads that do not divide the width", "heads", sizes="{a: [1, 8, 3], b: [1, 16, 1]}"),
    _study("B070", "a size named ../x", r"\.\./x", sizes="{../x: [1, 8, 1]}", blocks="{main: {sizes: [../x], epochs: [1], seeds: [1]}}"),
    _block("B071", "a block named ../x with settings", r"\.\./x",
           "{sizes: [a], epochs: [1], seeds: [1], settings: {seed: 2}}", "../x"),
    _block("B072", "a block that is a number", "main", "7"),
    _study("B107", "validation_targets 0", "validation_targets", validation_targets="0"),
    _study("B108", "tuning of one rate", "learning_rates", tuning="{sizes: [a], learning_rates: [1e-3], epochs: 1}"),
    _study("B109", "a size below 0", "size a", sizes="{a: [-1, 8, 1], b: [1, 16, 1]}"),
    _study("B110", "name is a list", "name", name="[a]"),
    Row("B111", "no such recipe", RUN, r"nowhere\.yaml: no such recipe", study(recipe="nowhere.yaml")),
    Row("B112", "no such data", f"{RUN} --data nowhere", "nowhere is not a prepared folder", study()),
    Row("B113", "a budget of no time", f"{RUN} --budget soon", "--budget.*'soon' is no time", study()),
    Row("B114", "a budget of nan", f"{RUN} --budget nan", "--budget.*'nan' is no time", study()),
    # Fitting
    Row("A266", "no such table", "scaling fit nowhere.csv", r"nowhere\.csv"),
    _fit("A263", "missing column", "", "N|column", "a,b\n1,2\n3,4\n"),
    _fit("A264", "--starts 0", "--starts 0", "starts"),
    _fit("A265", "--bootstrap -1", "--bootstrap -1", "bootstrap"),
    _fit("A267", "an empty table", "", r"t\.csv", ""),
    _fit("A268", "a text where a number is wanted", "", r"t\.csv.*many|many", _TABLE + "many,1,2\n"),
    _fit("A269", "a loss of nan", "", "nan|loss|finite", _TABLE + "1e6,1e9,nan\n"),
    _fit("A270", "N of 0", "", "N|above 0|positive", _TABLE + "0,1e9,3\n"),
    _fit("A271", "two points", "", "points", "N,D,loss\n1e6,1e9,3\n1e7,1e9,2.9\n"),
    _fit("A272", "--law nonsense", "--law nonsense", "--law: invalid choice"),
    _fit("A273", "a column that is not there", "--n-column size", "size"),
    _fit("A274", "--seed -1", "--seed -1", "seed"),
    _fit("A275", "--drop-largest-losses 99", "--drop-largest-losses 99", "drop|points|99"),
    _fit("A296", "--starts 10^9", "--starts 1000000000", "--starts: .*too many; give at most 100,000"),
    _fit("A297", "--bootstrap 10^9", "--bootstrap 1000000000", "--bootstrap: .*too many; give at most 100,000"),
    _fit("A298", "--json: the table", "--json t.csv", r"--json t\.csv is a file that this command reads"),
    _fit("A299", "two laws", "--law n --law d", "--law is given twice"),
    _fit("A276", "--json into no folder", "--json nowhere/x.json", "--json nowhere/x.json"),
    Row("A277", "a binary table", "scaling fit t.csv", r"t\.csv", write("t.csv", b"\x00\xff" * 500)),
    Row("A278", "a folder without records", "scaling fit e", "e", write("e/mine.txt", "mine")),
    Row("A279", "a cut record", "scaling fit m/run.json --law n", r"run\.json", write("m/run.json", '{"name": "x", ')),
    Row("A280", "predict --fit t.csv", "scaling predict --fit t.csv --n 1e9", r"t\.csv", write("t.csv", _TABLE)),
    _predict("A281", "a fit that is cut", "--n 1e9", r"f\.json", cut("f.json")),
    _predict("A282", "predict --n nan", "--n nan --d 10", "--n|n is nan"),
    _predict("A283", "predict --n 0", "--n 0", "--n|n is 0"),
    _predict("A284", "predict --n -5", "--n -5", "--n|-5"),
    _predict("A285", "a fit without params", "--n 1e9", r"f\.json", edit("f.json", lambda one: b'{"law": "n"}')),
    _predict("A286", "a fit of an unknown law", "--n 1e9", "luck", set_keys("f.json", law="luck")),
    _predict("A287", "nothing asked", "", "--n"),
    _predict("A288", "--flops nan", "--flops nan", "flops"),
    _predict("A346", "--json: the fit", "--n 1e9 --json f.json", r"--json f\.json is a file that this command reads"),
    Row("A347", "sample: a log that was changed",
        "scaling sample --model RUN --data d --interactions 10 --output o", r"histories\.arrow", flip("d/histories.arrow")),
    Row("A348", "sample: the revision of a folder",
        "scaling sample --model RUN --revision v1 --data DATA --interactions 10 --output o", "no revision v1"),
    Row("A349", "advise --json: the manifest", "scaling advise --data d --budget 1m --output o --json d/manifest.json",
        "is a file that this command reads"),
    Row("A289", "predict: hold out all", "scaling predict t.csv --hold-out 99", "hold", write("t.csv", _TABLE)),
    Row("A290", "report of nothing", "scaling report nowhere --output o", "nowhere"),
    Row("A291", "report of a folder that is no study", "scaling report e --output o", "e", write("e/x", "x")),
    Row("A292", "advise: no budget", "scaling advise --data DATA --budget 0", "--budget.*'0' is no time above 0"),
    Row("A293", "advise: no data", "scaling advise --data nowhere --budget 1m --output o", "nowhere is not a prepared folder"),
    Row("A294", "advise: epochs nan", "scaling advise --data DATA --budget 1m --output o --epochs nan", "epochs"),
    Row("N510", "a log whose test targets are all unknown", "scaling run s.yaml --data q --output o",
        "q: all 9 test targets lie outside the item vocabulary", both(study(), _late_log("test"))),
    Row("N511", "the same in validation", "scaling run s.yaml --data q --output o --dry-run",
        "q: all 9 validation targets lie outside the item vocabulary", both(study(), _late_log("validation"))),
    Row("N512", "advise: test targets that are all unknown", "scaling advise --data q --budget 1m --output o",
        "q: all 9 test targets lie outside the item vocabulary", _late_log("test")),
    Row("N513", "train: test targets that are all unknown", "train RECIPE --data q --output o",
        "q: all 9 test targets lie outside the item vocabulary", _late_log("test")),
    Row("A295", "advise: utilisation 0", "scaling advise --data DATA --budget 1m --output o --utilisation 0", "utilisation"),
]  # fmt: skip
