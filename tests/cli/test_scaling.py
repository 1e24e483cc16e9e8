import json
import subprocess
import sys

import numpy as np
import pytest

from sr_transformers.cli import main
from sr_transformers.scaling.laws.forms import LAWS

JOINT = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A published table: sizes and FLOPs under names of its own, two points that had not settled."""
    path = tmp_path_factory.mktemp("table") / "points.csv"
    n, d = (column.ravel() for column in np.meshgrid(np.logspace(7, 10, 6), np.logspace(9, 11.5, 5)))
    loss = LAWS["joint"].predict(JOINT, {"N": n, "D": d})
    loss = loss * np.exp(0.002 * np.random.default_rng(0).standard_normal(len(n)))
    rows = [f"{a},{6 * a * b},{c}" for a, b, c in zip(n, d, loss, strict=True)] + ["1e7,6e16,9.9", "1e8,6e17,9.8"]
    path.write_text("Model Size,Training FLOP,loss\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def fitted(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "fit.json"
    columns = ["--n-column", "Model Size", "--c-column", "Training FLOP", "--loss-column", "loss"]
    more = ["--law", "joint", "--drop-largest-losses", "2", "--bootstrap", "50", "--starts", "4", "--json", str(path)]
    assert main(["scaling", "fit", str(table), *columns, *more]) == 0
    return path


def test_fit_writes_what_a_reader_needs(fitted):
    document = json.loads(fitted.read_text())
    assert document["law"] == "joint"
    assert document["status"] == "converged"
    assert document["dropped"] == {"largest losses": 2}
    assert document["num_points"] == 30
    for name, value in JOINT.items():
        low, high = document["intervals"][name]
        assert low <= document["params"][name] <= high
        assert document["params"][name] == pytest.approx(value, rel=0.3)
    assert document["objective"] > 0


def test_fit_says_it_in_words_too(table, capsys):
    assert main(["scaling", "fit", str(table), "--n-column", "Model Size", "--c-column", "Training FLOP",
                 "--bootstrap", "0", "--starts", "2", "--drop-largest-losses", "2", "--compare", "n"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "L = E + A / N^alpha + B / D^beta" in out
    assert "status: converged" in out
    assert "no intervals: no bootstrap was asked for." in out
    assert "AICc" in out


def test_predict_holds_out_the_largest_sizes(table, capsys, tmp_path):
    arguments = [
        "--n-column",
        "Model Size",
        "--c-column",
        "Training FLOP",
        "--law",
        "joint",
        "--drop-largest-losses",
        "2",
    ]
    more = ["--bootstrap", "40", "--json", str(tmp_path / "held.json")]
    assert main(["scaling", "predict", str(table), *arguments, *more]) == 0
    held = json.loads((tmp_path / "held.json").read_text())
    assert len(held["rows"]) == 10
    assert all(abs(row["relative_error"]) < 0.05 for row in held["rows"])
    assert json.loads(capsys.readouterr().out) == held


def test_predict_answers_from_a_fit(fitted, capsys):
    assert main(["scaling", "predict", "--fit", str(fitted), "--n", "1e9", "--d", "1e10", "--flops", "1e20"]) == 0
    answer = json.loads(capsys.readouterr().out)
    params = json.loads(fitted.read_text())["params"]
    expected = params["E"] + params["A"] / 1e9 ** params["alpha"] + params["B"] / 1e10 ** params["beta"]
    assert answer["predicted"][0]["value"] == pytest.approx(expected)
    assert answer["predicted"][0]["beyond"] is None
    (best,) = answer["compute_optimal"]
    assert 6 * best["N"] * best["D"] == pytest.approx(1e20)


def test_predict_says_how_far_it_looks_beyond_the_points(fitted, capsys):
    assert main(["scaling", "predict", "--fit", str(fitted), "--n", "2e10", "--d", "1e8", "--flops", "1e30"]) == 0
    answer = json.loads(capsys.readouterr().out)
    said = "N is 2 times the largest fitted; D is 0.1 times the smallest fitted"
    assert answer["predicted"][0]["beyond"] == said
    assert "times the largest fitted" in answer["compute_optimal"][0]["beyond"]
    assert answer["reason"] == json.loads(fitted.read_text())["reason"]


def test_a_law_of_data_is_asked_for_data_alone(tmp_path, capsys):
    d = np.geomspace(1e4, 1e7, 6)
    (tmp_path / "points.csv").write_text("\n".join(["D,loss", *(f"{a},{3 + 90 * a**-0.4}" for a in d)]))
    fit = str(tmp_path / "fit.json")
    more = ["--law", "d", "--bootstrap", "0", "--starts", "2", "--json", fit]
    assert main(["scaling", "fit", str(tmp_path / "points.csv"), *more]) == 0
    capsys.readouterr()
    assert main(["scaling", "predict", "--fit", fit, "--d", "1e6"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["predicted"]
    assert (one["D"], one["value"]) == (1e6, pytest.approx(3 + 90 * 1e6**-0.4, rel=1e-3))
    assert main(["scaling", "predict", "--fit", fit, "--n", "5", "--d", "1e6"]) == 2
    assert "law d does not know N" in capsys.readouterr().err


def test_what_a_prediction_left_out_stands_beside_it(table, capsys):
    columns = ["--n-column", "Model Size", "--c-column", "Training FLOP", "--law", "joint"]
    assert main(["scaling", "predict", str(table), *columns, "--drop-largest-losses", "2", "--bootstrap", "0"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["dropped"] == {"largest losses": 2}
    assert answer["warnings"] == []
    assert answer["reason"]


def test_parameters_are_fixed_and_tied(table, tmp_path, capsys):
    columns = ["--n-column", "Model Size", "--c-column", "Training FLOP", "--drop-largest-losses", "2"]
    more = ["--bootstrap", "0", "--starts", "2", "--json", str(tmp_path / "fit.json")]
    assert main(["scaling", "fit", str(table), *columns, *more, "--fix", "E=1.8", "--tie", "alpha=beta"]) == 0
    document = json.loads((tmp_path / "fit.json").read_text())
    assert document["params"]["E"] == pytest.approx(1.8)
    assert document["params"]["alpha"] == document["params"]["beta"]
    assert (document["fixed"], document["tied"], document["num_parameters"]) == ({"E": 1.8}, [["alpha", "beta"]], 3)
    assert "E      1.8  fixed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fix", "E"], "--fix 'E': write NAME=VALUE"),
        (["--fix", "E=low"], "--fix 'E=low': write NAME=VALUE"),
        (["--fix", "F=1"], "law joint has no parameter 'F'"),
        (["--tie", "alpha"], "--tie 'alpha': write NAME=NAME"),
        (["--fix", "E=1", "--fix", "E=2"], "--fix gives E twice, 1 and 2: give it once"),
        (["--fix", "E=1", "--compare", "n"], "--compare fits every form with all of its parameters free"),
        (["--compare", "saturating"], "the forms joint, saturating cannot be compared"),
        (["--where", "size=big"], "no column 'size'"),
        (["--where", "loss"], "--where 'loss': write NAME=VALUE"),
        (["--where", "loss=1", "loss=2"], "--where gives loss twice, 1 and 2"),
        (["--metric", "hr@10", "--metric-column", "loss"], "--metric and --metric-column both name"),
        (["--law", "repeated"], "law repeated needs the column unique"),
    ],
)
def test_constraints_and_choices_that_cannot_be_are_refused(table, arguments, message, capsys):
    columns = ["--n-column", "Model Size", "--c-column", "Training FLOP"]
    assert main(["scaling", "fit", str(table), *columns, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_option_that_is_given_twice_adds_to_the_first(table, tmp_path):
    columns = ["--n-column", "Model Size", "--c-column", "Training FLOP", "--drop-largest-losses", "2"]
    more = ["--bootstrap", "0", "--starts", "2", "--json", str(tmp_path / "fit.json")]
    assert main(["scaling", "fit", str(table), *columns, *more, "--fix", "E=1.8", "--fix", "alpha=0.35"]) == 0
    assert json.loads((tmp_path / "fit.json").read_text())["fixed"] == {"E": 1.8, "alpha": 0.35}


@pytest.mark.parametrize(("flags", "best"), [([], 0.5), (["--metric", "hr@10"], 0.8)])
def test_the_metric_of_a_table_is_the_one_asked_for(tmp_path, flags, best):
    n = np.geomspace(1e4, 1e7, 6)
    rows = [f"{a},{0.8 - 2 * a**-0.3},{0.5 - 2 * a**-0.3}" for a in n]
    (tmp_path / "points.csv").write_text("\n".join(["N,hr@10,ndcg@10", *rows]))
    more = ["--law", "saturating", "--bootstrap", "0", "--starts", "2", "--json", str(tmp_path / "fit.json")]
    assert main(["scaling", "fit", str(tmp_path / "points.csv"), *more, *flags]) == 0
    fitted = json.loads((tmp_path / "fit.json").read_text())
    assert fitted["params"]["M_inf"] == pytest.approx(best, abs=1e-3)
    assert fitted["quantity"] == (flags or [None, "ndcg@10"])[1]


@pytest.mark.parametrize("flags", [["--where", "in_law=true"], ["--n-column", "size"]])
def test_options_of_tables_are_refused_for_records(tmp_path, flags, capsys):
    assert main(["scaling", "fit", str(tmp_path), "--law", "n", *flags]) == 2
    assert f"{flags[0]} is for a table, and {tmp_path} is none" in capsys.readouterr().err


def test_a_log_is_sampled_from_a_checkpoint(markov_prepared, tmp_path, capsys):
    from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
    from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM

    config = LSRMConfig(
        vocab_size=markov_prepared.vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    LSRMForCausalLM(config).save_pretrained(tmp_path / "teacher")
    markov_prepared.tokenizer.save_pretrained(tmp_path / "teacher")
    arguments = ["--model", str(tmp_path / "teacher"), "--data", str(markov_prepared.path), "--interactions", "500"]
    assert main(["scaling", "sample", *arguments, "--output", str(tmp_path / "log")]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{") :])["interactions"] >= 500
    assert (tmp_path / "log" / "log.parquet").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.csv"], "nowhere.csv: no such file"),
        (["fit", "a.csv", "b.csv"], "give one table, or run records; these are 2 tables"),
        (["predict"], "give a table of points or run records, or --fit FILE"),
        (["predict", "--fit", "nowhere.json", "--n", "1"], "nowhere.json: no such file"),
        (["run", "nowhere.yaml", "--output", "x"], "nowhere.yaml: no such study"),
        (["report", "nowhere", "--output", "x"], "nowhere is no study"),
        (["advise", "--data", "nowhere", "--budget", "60m"], "nowhere is not a prepared folder"),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["scaling", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "1e9"], "law joint needs --d with --n"),
        ([], "answers --n N ... "),
        (["points.csv", "--n", "1"], "give points or --fit, not both"),
        (["--n", "nan", "--d", "10"], "--n is nan; it must be a finite number above 0"),
        (["--n", "10", "--d", "-1"], "--d is -1"),
        (["--flops", "inf"], "--flops is inf"),
    ],
)
def test_questions_to_a_fit_are_checked(fitted, arguments, message, capsys):
    assert main(["scaling", "predict", "--fit", str(fitted), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_fit_is_refused(tmp_path, capsys):
    (tmp_path / "x.json").write_text("N,loss\n1,2\n")
    assert main(["scaling", "predict", "--fit", str(tmp_path / "x.json"), "--n", "1e5"]) == 2
    assert "x.json is no fit as JSON" in capsys.readouterr().err
    (tmp_path / "x.json").write_text('{"law": "n"}')
    assert main(["scaling", "predict", "--fit", str(tmp_path / "x.json"), "--n", "1e5"]) == 2
    assert "is no fit: it lacks" in capsys.readouterr().err
    (tmp_path / "x.json").write_text('{"law": "n", "params": {"E": 1}, "status": "converged"}')
    assert main(["scaling", "predict", "--fit", str(tmp_path / "x.json"), "--n", "1e5"]) == 2
    assert "law n has the parameters E, A, alpha" in capsys.readouterr().err
    for value in ("null", '"x"', "-1", "[1]"):
        params = f'{{"E": {value}, "A": 1, "alpha": 0.1}}'
        (tmp_path / "x.json").write_text(f'{{"law": "n", "params": {params}, "status": "converged"}}')
        assert main(["scaling", "predict", "--fit", str(tmp_path / "x.json"), "--n", "1e5"]) == 2
        assert "x.json: E is" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "minutes"), [("90m", 90.0), ("1.5h", 90.0), ("1h30m", 90.0), ("90s", 1.5)])
def test_times_are_read(text, minutes, monkeypatch, capsys):
    from sr_transformers.cli.scaling import _minutes

    assert _minutes(text) == minutes


@pytest.mark.parametrize("text", ["soon", "-5", "0m", "", "90"])
def test_times_that_are_none_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["scaling", "advise", "--data", "x", "--budget", text])
    assert "is no time above 0; write 90s, 30m, 1h or 1h30m" in capsys.readouterr().err


def test_fitting_needs_no_torch(table):
    code = (
        "import sys; from sr_transformers.cli import main; "
        f"main(['scaling', 'fit', {str(table)!r}, '--n-column', 'Model Size', '--c-column', 'Training FLOP', "
        "'--law', 'n', '--bootstrap', '0', '--starts', '1']); "
        "print([name for name in ('torch', 'transformers', 'polars', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr
