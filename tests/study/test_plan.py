import pytest

from sr_transformers.study.plan import Size, Study, dump

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


def test_tuning_tries_every_rate_on_every_size(tmp_path):
    runs = load(tmp_path).tuning_runs()
    assert [run.name for run in runs] == ["3k-users0.1-e2-lr0.002-s1", "3k-users0.1-e2-lr0.008-s1"]
    assert [run.learning_rate for run in runs] == [2e-3, 8e-3]
    untuned = load(tmp_path, BASE.replace("tuning:", "#"))
    assert untuned.tuning_runs() == []
    with pytest.raises(ValueError, match="study tiny tunes no learning rate"):
        untuned.tuning_run("3k", 0.1)


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
        ("epochs: [2, 3.5]", "epochs: [0]", r"epochs are \[0\]; each must be a number above 0"),
        ("seeds: [1, 2]", "seeds: []", "block main: seeds is .*a list with something in it"),
        ("{context: 0.5}", "{items: 0.5}", "a fraction is .*write 0.1 or"),
        ("{context: 0.5}", "{context: 2}", "a fraction is"),
        ("[1, 16, 1]", "[1, 16]", r"size 3k is \[1, 16\]; write \[layers, width, heads\]"),
        ("[1, 16, 1]", "[1, 16, 3]", "size 3k: 3 heads do not divide the width 16"),
        ("tuning: {sizes: [3k]", "tuning: {sizes: [1k]", "tuning: size '1k' is not among sizes"),
        ("[2e-3, 8e-3]", "[2e-3]", "learning_rates are .*at least two"),
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
    text = BASE.replace("  other:", '  "": {sizes: [3k], epochs: [2], seeds: [7], settings: {patience: 1}}\n  other:')
    other = text.replace("  bare:", "  bar-e: {sizes: [3k], epochs: [2], seeds: [1], settings: {patience: 2}}\n  bare:")
    assert len(load(tmp_path, other).runs) == 21
    clash = BASE + "  bare-s1: {sizes: [3k], epochs: [2], seeds: [1]}\n"
    assert load(tmp_path, clash).runs  # a plain block's name stands in no run
