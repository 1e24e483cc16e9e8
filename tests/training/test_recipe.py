import pytest

from sr_transformers.training.recipe import Recipe, default_of, parse_value, recipe_keys


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "one.yaml"
        path.write_text(text)
        return path

    return write


def test_a_recipe_fills_config_and_arguments(write, tmp_path):
    recipe = Recipe.load(
        write("model:\n  hidden_size: 32\n  residual_dropout: [0.3, 0.1]\ntraining:\n  learning_rate: 1e-3\n")
    )
    assert recipe.name == "one"
    assert recipe.config(50).layer_dropout("residual_dropout") == [0.3, 0.1]
    assert recipe.config(50).vocab_size == 50
    assert recipe.arguments(tmp_path).learning_rate == 0.001  # a number, though YAML 1.1 reads text


def test_the_command_line_wins(write):
    recipe = Recipe.load(write("training:\n  seed: 1\n"), {"seed": 7, "hidden_size": 16})
    assert recipe.training["seed"] == 7
    assert recipe.model["hidden_size"] == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  hiden_size: 3\n", r"one.yaml: unknown key 'hiden_size' in model; did you mean 'hidden_size'\?"),
        ("training:\n  learning_rat: 3\n", r"did you mean 'learning_rate'\?"),
        ("modle:\n  x: 3\n", r"unknown section \['modle'\]"),
        ("model:\n  hidden_size: wide\n", r"one.yaml: model.hidden_size is 'wide' \(str\); it must be"),
        ("training:\n  learning_rate: fast\n", "training.learning_rate is 'fast'"),
        ("training:\n  seed: true\n", "training.seed is True"),
        ("training:\n  output_dir: here\n", "one.yaml: output_dir is no key of a recipe: .*--output"),
        ("model:\n  vocab_size: 3\n", "one.yaml: vocab_size is no key of a recipe: the prepared log"),
        ("training:\n  warmup_steps: [1]\n", r"warmup_steps is \[1\] \(list\); it must be a number\."),
        ("training:\n  row_width: yes\n", r"row_width is 'yes' \(str\); it must be a whole number or null\."),
        ("- model\n", r"one.yaml: a recipe is a mapping of the sections model and training .* not \['model'\]"),
        ("7\n", r"one.yaml: a recipe is a mapping .* not 7\."),
        ("1: {}\n", r"one.yaml: unknown section \['1'\]"),
        ("null: {}\n", r"one.yaml: unknown section \['null'\]"),
        ("model: []\n", r"one.yaml: section model must hold keys and values, not \[\]"),
        (
            "training:\n  seed: 1\n  seed: 2\n",
            "one.yaml, line 3, column 3: seed stands twice, the first time in line 2",
        ),
        ("model: 3\n", "section model must hold keys and values, not 3"),
    ],
)
def test_mistakes_are_errors_that_name_file_key_and_nearest(write, text, message):
    with pytest.raises(ValueError, match=message):
        Recipe.load(write(text))


def test_a_refused_value_is_not_shown_whole(write):
    with pytest.raises(ValueError, match=r"hidden_size is \[0, 1, 2, 3, 4, \.\.\.\] \(list\); it must be") as refusal:
        Recipe.load(write(f"model:\n  hidden_size: {list(range(50_000))}\n"))
    assert len(str(refusal.value)) < 300


def test_mistakes_on_the_command_line_are_errors_too(write):
    with pytest.raises(ValueError, match=r"command line: unknown key 'sed'; did you mean 'seed'\?"):
        Recipe.load(write(""), {"sed": 1})


def test_a_model_that_cannot_be_built_is_a_value_error(write):
    recipe = Recipe.load(write("model:\n  hidden_size: 65\n"))
    with pytest.raises(ValueError, match=r"recipe one: .*hidden_size 65 is not a multiple"):
        recipe.config(50)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such recipe"):
        Recipe.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-3", 0.002),
        ("[0.2, 0.1]", [0.2, 0.1]),
        ("true", True),
        ("null", None),
        ("7", 7),
        ("loss", "loss"),
        ("-1E5", -1e5),
        ("no", "no"),  # a value of eval_strategy
    ],
)
def test_command_line_values_are_read_like_yaml(text, value):
    assert parse_value(text, "--key") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", r"--seed '\[1': this is no YAML: while parsing a flow sequence"),
        ("!!python/name:os.system", r"--seed '!!python/name:os.system': the tag !!python/name:os.system is not read"),
    ],
)
def test_a_value_of_the_command_line_that_is_no_yaml_is_named_with_its_option(text, message):
    with pytest.raises(ValueError, match=message):
        parse_value(text, "--seed")


def test_keys_and_their_defaults_are_those_of_the_classes():
    keys = recipe_keys()
    assert {"hidden_size", "history", "learning_rate", "num_negatives"} <= set(keys)
    assert not {"output_dir", "vocab_size", "filter_sean"} & set(keys)
    assert (default_of("hidden_size"), default_of("learning_rate"), default_of("history")) == (64, 1e-3, ())
    with pytest.raises(KeyError):
        default_of("vocab_size")
