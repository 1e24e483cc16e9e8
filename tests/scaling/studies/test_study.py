import pytest

from sr_transformers.scaling.studies.study import Size, Study, dump
from sr_transformers.scaling.studies.tuning_section import TuningPart

BASE = """
name: tiny
data: prepared/tiny
recipe: base.yaml
settings: {patience: 9}
validation_targets: 100
sizes: {3k: [1, 16, 1], 98k: [2, 64, 2], 9m: null}
tuning: {sizes: [3k], learning_rates: [2e-3, 8e-3], fraction: {users: 0.1}, epochs: 2}
blocks:
  main: {sizes: [3k, 98k], fractions: [{users: 0.1}, 1.0], epochs: [2, 3.5], seeds: [1, 2]}
  again: {sizes: [3k], fractions: [1.0], epochs: [2], seeds: [1, 3]}
  bare: {sizes: [3k], epochs: [2], seeds: [1], settings: {residual_dropout: [0.0, 0.0]}, must: true}
  other: {sizes: [98k], fractions: [{context: 0.5}], epochs: [2], seeds: [1], law: false}
"""


def load(tmp_path, text=BASE):
    (tmp_path / "base.yaml").write_text("model: {hidden_size: 8}\ntraining: {learning_rate: 1e-3}\n")
    (tmp_path / "study.yaml").write_text(text)
    return Study.load(tmp_path / "study.yaml")


def test_blocks_are_products_and_runs_are_done_once(tmp_path):
    study = load(tmp_path)
    names = [run.name for run in study.runs]
    assert len(names) == len(set(names)) == 16 + 1 + 1 + 1
    assert names[0] == "3k-users0.1-e2-s1"
    assert {"3k-e2-s1", "3k-e2-s3", "98k-e3.5-s2", "3k-e2-bare-s1", "98k-context0.5-e2-s1"} <= set(names)


def test_a_block_with_settings_is_a_variant_outside_the_law(tmp_path):
    runs = {run.name: run for run in load(tmp_path).runs}
    bare = runs["3k-e2-bare-s1"]
    assert bare.is_variant
    assert bare.must
    assert bare.settings == (("residual_dropout", (0.0, 0.0)),)
    assert not bare.in_law
    assert not runs["98k-context0.5-e2-s1"].in_law
    assert runs["3k-e2-s1"].in_law
    assert bare.describe()["settings"] == {"residual_dropout": (0.0, 0.0)}


def test_sizes_are_shapes_or_the_papers(tmp_path):
    sizes = load(tmp_path).sizes
    assert sizes["3k"].num_non_embedding_parameters == 3072
    assert sizes["9m"] == Size("9m", 12, 256, 8)
    assert sizes["98k"].settings()["intermediate_size"] == 256


def test_the_recipe_gets_the_studys_settings(tmp_path):
    study = load(tmp_path)
    assert study.recipe.training == {"learning_rate": 1e-3, "patience": 9}
    assert study.recipe.model == {"hidden_size": 8}


def test_a_run_that_tries_rates_says_which(tmp_path):
    study = load(tmp_path)
    run = study.tuning_run("3k", 2e-3, 0.1)
    assert run.name == "3k-users0.1-e2-lr0.002-do0.1-s0"
    assert dict(run.settings) == {"learning_rate": 2e-3, "embedding_dropout": 0.1, "residual_dropout": 0.1}
    assert not run.in_law
    assert study.tuning_run("3k", 2e-3, None).name == "3k-users0.1-e2-lr0.002-s0"
    untuned = load(tmp_path, BASE.replace("tuning:", "#"))
    with pytest.raises(ValueError, match="study tiny tunes no learning rate"):
        untuned.tuning_run("3k", 0.1, None)


def test_sizes_are_tuned_from_the_smallest_on(tmp_path):
    more = BASE.replace("tuning: {sizes: [3k], learning_rates: [2e-3, 8e-3]",
                        "tuning: {sizes: [98k, 3k], learning_rates: [8e-3, 2e-3], dropouts: [0.2, 0]")  # fmt: skip
    tuning = load(tmp_path, more).tuning
    assert tuning.sizes == ["3k", "98k"]
    assert (tuning.learning_rates, tuning.dropouts) == ([2e-3, 8e-3], [0.0, 0.2])
    assert tuning.start == {}
    begun = load(tmp_path, more.replace("epochs: 2}", "epochs: 2, start: {98k: [8e-3, 0]}}")).tuning
    assert begun.start == {"98k": (8e-3, 0.0)}


def test_the_dropout_may_be_tuned_on_a_part_of_the_data_too(tmp_path):
    tuning = "tuning: {part: PART, sizes: [98k, 3k], learning_rates: [8e-3, 2e-3], dropouts: [0.0, 0.2], epochs: 2}"
    text = "\n".join(tuning if line.startswith("tuning:") else line for line in BASE.split("\n"))
    good = "{fraction: {users: 0.2}, sizes: [98k, 3k], epochs: {3k: 9, 98k: 4}, start: {98k: 0.2}}"
    study = load(tmp_path, text.replace("PART", good))
    assert study.tuning.part == TuningPart("users", 0.2, {"3k": 9.0, "98k": 4.0}, {"98k": 0.2})
    assert study.tuning_run("98k", 4e-3, 0.2, part=True).name == "98k-users0.2-e4-lr0.004-do0.2-s0"
    for wrong, said in (
        (good.replace("0.2}, sizes", "1.0}, sizes"), "part: fraction is 1; it must be below the 1 of the section"),
        (good.replace("98k: 0.2", "98k: 0.3"), "part: a start is 0.3; write one of dropouts"),
        (good.replace("[98k, 3k]", "[9m]"), "part: size '9m' is not among sizes"),
        (good.replace("epochs", "epoch"), "part: missing keys"),
    ):
        with pytest.raises(ValueError, match=said):
            load(tmp_path, text.replace("PART", wrong))
    with pytest.raises(ValueError, match="only dropouts are tuned on a part"):
        load(tmp_path, text.replace("PART", good).replace(", dropouts: [0.0, 0.2]", ""))
    with pytest.raises(ValueError, match="add `part` to its `tuning`"):
        load(tmp_path).tuning_run("3k", 2e-3, 0.1, part=True)


def test_every_size_may_have_its_own_epochs(tmp_path):
    own = "fractions: [{users: 0.1}, 1.0], epochs: {3k: 40, 98k: 20, 9m: 5}, seeds: [1, 2]"
    runs = load(tmp_path, BASE.replace("fractions: [{users: 0.1}, 1.0], epochs: [2, 3.5], seeds: [1, 2]", own)).runs
    main = [run for run in runs if run.block == "main"]
    assert {(run.size.name, run.epochs, run.own_epochs) for run in main} == {("3k", 40.0, True), ("98k", 20.0, True)}
    assert not any(run.own_epochs for run in runs if run.block != "main")
    assert main[0].describe()["own_epochs"]
    text = BASE.replace("users: 0.1}, epochs: 2}", "users: 0.1}, epochs: {3k: 7}}")
    assert load(tmp_path, text).tuning_run("3k", 2e-3, None).epochs == 7.0


def test_a_study_goes_to_yaml_and_back(tmp_path):
    study = load(tmp_path)
    assert load(tmp_path, dump(study.source)).runs == study.runs


def test_its_yaml_names_no_place_of_this_machine(tmp_path):
    content = {**load(tmp_path).source, "data": "/home/zaphod/ml-1m", "recipe": "/home/zaphod/r.yaml"}
    assert "zaphod" not in dump(content)
    assert "data: ml-1m\n" in dump(content)
    assert "data: prepared/ml-1m\n" in dump({**content, "data": "prepared/ml-1m"})


@pytest.mark.parametrize("where", ["settings:", "no-dropout:"])
def test_a_token_does_not_belong_into_a_study(tmp_path, where):
    content = load(tmp_path).source
    target = content if where == "settings:" else content["blocks"]["main"]
    target["settings"] = {**(target.get("settings") or {}), "hub_token": "hf_x"}
    with pytest.raises(ValueError, match="hub_token does not belong into a study"):
        load(tmp_path, dump(content))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: tiny", "title: tiny", r"missing keys \['name'\], unknown keys \['title'\]"),
        ("patience: 9", "patients: 9", "unknown key 'patients'; did you mean 'patience'"),
        ("sizes: [3k, 98k], fractions", "sizes: [3k, 99k], fractions", "block main: size '99k' is not among sizes"),
        ("epochs: [2, 3.5]", "epochs: [0]", r"epochs is \[0\]; give numbers above 0"),
        ("epochs: [2, 3.5]", "epochs: []", r"epochs is \[\]; give numbers above 0"),
        ("epochs: [2, 3.5]", "epochs: {3k: 4}", "epochs has no number for the size '98k'"),
        ("epochs: [2, 3.5]", "epochs: {3k: 4, 98k: x}", "epochs is .*give numbers above 0"),
        ("seeds: [1, 2]", "seeds: []", "block main: seeds is .*a list with something in it"),
        ("{context: 0.5}", "{items: 0.5}", "a fraction is .*write 0.1 or"),
        ("{context: 0.5}", "{context: 2}", "a fraction is"),
        ("[1, 16, 1]", "[1, 16]", r"size 3k is \[1, 16\]; write \[layers, width, heads\]"),
        ("[1, 16, 1]", "[1, 16, 3]", "size 3k: 3 heads do not divide the width 16"),
        ("tuning: {sizes: [3k]", "tuning: {sizes: [1k]", "tuning: size '1k' is not among sizes"),
        ("[2e-3, 8e-3]", "[2e-3]", "learning_rates is .*at least two"),
        ("[2e-3, 8e-3]", "[2e-3, 2e-3]", "learning_rates is .*at least two different"),
        ("[2e-3, 8e-3]", "[2e-3, .inf]", "learning_rates is .*at least two different"),
        ("[2e-3, 8e-3]", "[2e-3, 8e-3], dropouts: [1.0]", "dropouts is .*from 0 to below 1"),
        ("[2e-3, 8e-3]", "[2e-3, 8e-3], dropouts: 0.1", "dropouts is 0.1"),
        ("epochs: 2}", "epochs: .nan}", "tuning: epochs is nan"),
        ("epochs: 2}", "epochs: 2, seed: x}", "tuning: seed is 'x'"),
        (
            "9m: null}\ntuning: {sizes: [3k]",
            "twin: [1, 16, 2]}\ntuning: {sizes: [3k, twin]",
            "3k and twin have the same N",
        ),
        ("epochs: 2}", "epochs: 2, start: 1}", "tuning: start is 1; write a place on the ladders"),
        ("epochs: 2}", "epochs: 2, start: {1k: 2e-3}}", "tuning: start names '1k', which is not among its sizes"),
        ("epochs: 2}", "epochs: 2, start: {3k: 3e-3}}", "tuning: a start is 0.003; write one of learning_rates, 0.004"),
        ("epochs: 2}", "epochs: 2, dropouts: [0, 0.1], start: {3k: 2e-3}}", "and one of dropouts"),
        ("tuning: {sizes: [3k]", "tuning: {sizes: 3k", "tuning: sizes is '3k'"),
        ("epochs: [2, 3.5]", "epochs: [.nan]", r"epochs is \[nan\]; give numbers above 0"),
        ("seeds: [1, 2]", "seeds: [x]", r"seeds are \['x'\]; each must be a whole number"),
        ("seeds: [1, 2]", "seeds: [-1]", r"seeds are \[-1\]"),
        ("must: true", "must: 1", "must is 1; it must be true or false"),
        ("law: false", "law: no way", "law is 'no way'"),
        ("fractions: [{context: 0.5}]", "fractions: 0.5", "fractions is 0.5"),
        ("{residual_dropout: [0.0, 0.0]}", "[0.0]", r"settings must hold keys and values, not \[0.0\]"),
        ("recipe: base.yaml", "recipe: 3", "recipe is 3; it must be text"),
        ("name: tiny", "name: 7", "name is 7; it must be text"),
        ("sizes: {3k: [1, 16, 1], 98k: [2, 64, 2], 9m: null}", "sizes: [3k, 98k]", "sizes must hold names and values"),
        ("settings: {patience: 9}", "settings: [patience]", "settings must hold names and values"),
        ("{3k: [1, 16, 1],", "{../../3k: [1, 16, 1],", "'../../3k' would become the name of a folder"),
        ("  other: {", "  ../../other: {", "'../../other' would become the name of a folder"),
        ("  other: {", "  .other: {", "'.other' would become the name of a folder"),
        ("validation_targets: 100", "validation_targets: 100\nconverged_within: 0", "converged_within is 0"),
        ("validation_targets: 100", "validation_targets: 0", "validation_targets is 0"),
        ("residual_dropout: [0.0, 0.0]", "dropout: 0.0", "unknown key 'dropout'"),
        ("main: {sizes", "main: 3 # {sizes", "block main must hold keys and values, not 3"),
        ("blocks:", "blocks: 3 #", "is no YAML: while parsing a block mapping"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, message):
    assert old in BASE
    with pytest.raises(ValueError, match=message):
        load(tmp_path, BASE.replace(old, new, 1))


def test_files_that_are_no_studies_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such study"):
        Study.load(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="a study is a YAML of keys and values"):
        load(tmp_path, "- 1\n")


def test_two_blocks_must_not_mean_different_things_by_one_name(tmp_path):
    clash = BASE.replace("9m: null}", "9m: null, 3k-e2-x: [1, 16, 1]}") + (
        "  x-e3: {sizes: [3k], epochs: [2], seeds: [1], settings: {patience: 1}}\n"
        "  y: {sizes: [3k-e2-x], epochs: [3], seeds: [1]}\n"
    )
    with pytest.raises(ValueError, match="two different runs would be called 3k-e2-x-e3-s1; rename a size"):
        load(tmp_path, clash)


def test_runs_whose_names_would_agree_by_rounding_are_refused(tmp_path):
    twins = BASE + "  a: {sizes: [3k], fractions: [0.12345671, 0.12345672], epochs: [2], seeds: [1]}\n"
    with pytest.raises(ValueError, match=r"two different runs would be called 3k-users0\.123457-e2-s1"):
        load(tmp_path, twins)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["shapes first", "main first"])
def test_a_run_of_two_blocks_is_a_point_of_the_law_if_one_of_them_says_so(tmp_path, order):
    head, _ = BASE.split("blocks:")
    blocks = [
        "  shapes: {sizes: [3k], fractions: [1.0], epochs: [2], seeds: [1], law: false, must: true}\n",
        "  main: {sizes: [3k], fractions: [1.0], epochs: {3k: 2}, seeds: [1]}\n",
    ]
    (run,) = load(tmp_path, head + "blocks:\n" + "".join(blocks[index] for index in order)).runs
    assert (run.block, run.in_law, run.must, run.own_epochs) == ("main", True, True, True)
