"""Recipes and values of the command line that are no recipe, no YAML, or ask for what cannot be."""

from bad_inputs.row import TRAIN, Row, recipe

_LAUGHS = "\n".join(
    ["a: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    + [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
)


def _refused(id: str, what: str, content: str | bytes, says: str) -> Row:
    return Row(id, what, TRAIN, says, recipe(content))


def _model(id: str, key: str, value: str, says: str | None = None) -> Row:
    return _refused(id, f"{key}: {value}", f"model:\n  {key}: {value}\n", says or key)


def _training(id: str, key: str, value: str, says: str | None = None) -> Row:
    return _refused(id, f"{key}: {value}", f"training:\n  {key}: {value}\n", says or key)


ROWS = [
    Row("B001", "no such file", TRAIN, r"r\.yaml: no such recipe"),
    Row("B002", "a folder", "train . --data DATA --output o", r"\.: no such recipe"),
    _refused("B003", "a text", "hello\n", r"r\.yaml: .*mapping .* not 'hello'"),
    _refused("B004", "list of sections' names only", "- model\n- training\n", r"r\.yaml: .*mapping .*keys and values"),
    _refused("B005", "list of mappings", "- model: {}\n", r"r\.yaml: .*mapping"),
    _refused("B006", "number", "7\n", r"r\.yaml: .*mapping .* not 7"),
    _refused("B007", "truth value", "false\n", r"r\.yaml: .*mapping .* not False"),
    _refused("B008", "unknown section", "modle: {}\n", r"r\.yaml: unknown section \['modle'\]"),
    _refused("B009", "section is a number", "model: 3\n", r"r\.yaml: section model must hold keys and values, not 3"),
    _refused("B010", "section is an empty list", "model: []\n", r"r\.yaml: section model must hold keys and values"),
    _refused("B011", "duplicate keys", "training:\n  learning_rate: 1e-3\n  learning_rate: 2e-3\n",
             r"r\.yaml, line 3, .*learning_rate stands twice"),
    _refused("B012", "duplicate sections", "model: {}\ntraining: {}\nmodel: {}\n", r"r\.yaml, line 3.*model stands twice"),
    _refused("B013", "misspelt key", "model:\n  hiden_size: 3\n", "unknown key 'hiden_size' .*did you mean 'hidden_size'"),
    _refused("B014", "key of the other section", "model:\n  seed: 3\n", "unknown key 'seed' in model"),
    _refused("B015", "key that the program sets", "model:\n  vocab_size: 3\n", "vocab_size is no key of a recipe"),
    _refused("B016", "!!python/object/apply", "training:\n  seed: !!python/object/apply:os.system ['touch marker']\n",
             r"r\.yaml, line 2.*the tag !!python/object/apply:os.system is not read"),
    _refused("B017", "!!python/name", "training: !!python/name:os.system\n", r"r\.yaml, line 1.*the tag !!python/name"),
    _refused("B019", "tabs", "model:\n\thidden_size: 16\n", r"r\.yaml, line 2.*never with tabs"),
    _refused("B020", "binary file", b"\x89PNG\r\n\x1a\n\x00\xff\xfe" * 20, r"r\.yaml is no text in UTF-8"),
    _refused("B021", "null bytes", "model:\n  hidden_size: \x00\n", r"r\.yaml is no YAML"),
    _refused("B022", "UTF-16", "model: {}\n".encode("utf-16"), r"r\.yaml is no text in UTF-8.*save it as UTF-8"),
    _refused("B023", "Latin-1", "# caf\xe9\n".encode("latin-1"), r"r\.yaml is no text in UTF-8"),
    _refused("B025", "two documents", "model: {}\n---\ntraining: {}\n", r"r\.yaml, line 2.*second document"),
    _refused("B026", "unclosed bracket", "model: {hidden_size: 16\n", r"r\.yaml, line .*no YAML.*begins in line 1"),
    _refused("B027", "deep nesting (recursion)", "[" * 1500, r"r\.yaml is nested too deeply"),
    _refused("B028", "integer key", "model:\n  16: 3\n", r"r\.yaml: unknown key '16' in model"),
    _refused("B029", "null key", "null: {}\n", r"r\.yaml: unknown section \['null'\]"),
    _refused("B030", "list key", "{[1]: 2}\n", r"r\.yaml, line 1.*a key is a list"),
    _refused("B031", "unclosed quote", "model:\n  hidden_act: 'gelu\n", r"r\.yaml, line .*no YAML"),
    _refused("B032", "undefined alias", "model: *a\n", r"r\.yaml, line 1.*undefined alias 'a'"),
    _refused("B033", "alias inside of itself", "model: &a {x: *a}\n", r"r\.yaml, line 1.*an alias stands for what it is"),
    _refused("B034", "a number of 5,000 digits", f"training:\n  seed: {'9' * 5000}\n", r"r\.yaml holds a number that is too"),
    _refused("B035", "a recipe of 2 MB", "#" * (2 << 20), r"r\.yaml has 2,097,152 bytes.*right file"),
    _refused("B073", "billion laughs", f"{_LAUGHS}\nmodel:\n  hidden_size: *a9\n", r"r\.yaml, line .*aliases unfold"),
    _refused("N001", "a list of 5,000 numbers as a value", f"model:\n  hidden_size: {list(range(5000))}\n",
             r"hidden_size is \[0, 1, 2, 3, 4, \.\.\.\] \(list\)"),
    _refused("N002", "a truth value of YAML 1.1", "training:\n  load_best_model_at_end: yes\n",
             "load_best_model_at_end is 'yes' .*it must be true or false"),
    _refused("N003", "a sexagesimal number of YAML 1.1", "training:\n  num_train_epochs: 1:30\n", "num_train_epochs is '1:30'"),
    _refused("N004", "a date", "training:\n  seed: 2020-01-01\n", "seed is '2020-01-01'"),
    # Shapes
    _model("B040", "hidden_size", "0"),
    _model("B041", "hidden_size", "-16"),
    _model("B042", "hidden_size", "wide"),
    _model("B043", "hidden_size", "16.5"),
    _model("B044", "hidden_size", "[16]"),
    _model("B045", "num_attention_heads", "3", "hidden_size|num_attention_heads"),
    _model("B046", "num_hidden_layers", "0"),
    _model("B047", "max_position_embeddings", "0"),
    _model("B048", "intermediate_size", "-1"),
    _model("B049", "num_hidden_layers", "1000000000", "layers|memory"),
    _model("B050", "hidden_act", "swoosh", "hidden_act.*swoosh"),
    _model("B051", "residual_dropout", "1.5"),
    _model("B052", "pad_token_id", "7"),
    _model("B053", "pad_token_id", "1000000000"),
    _model("B054", "residual_dropout", "[0.1, 0.2, 0.3]"),
    _model("B055", "attention_dropout", ".nan"),
    _model("B056", "initializer_range", "-1.0"),
    # Training
    _training("N010", "learning_rate", "fast"),
    _training("N011", "seed", "true"),
    _training("N012", "seed", "1.5"),
    _training("N013", "objective", "everything"),
    _training("N014", "layout", "columns"),
    _training("N015", "precision", "fp7"),
    _training("N016", "optim", "adamm"),
    _training("N017", "lr_scheduler_type", "wavy"),
    _training("N018", "eval_strategy", "sometimes"),
    _training("N019", "metric_for_best_model", "beauty"),
    _training("N020", "warmup_steps", "-1"),
    _training("N021", "per_device_train_batch_size", "null"),
    _training("N022", "row_width", "4", "row_width|window"),
    _training("N023", "save_total_limit", "1"),
    _training("N024", "patience", "0"),
    _training("N025", "adam_beta1", "1.5"),
    _training("N026", "adam_epsilon", "-1.0"),
    _training("N027", "filter_seen", "maybe"),
]  # fmt: skip
