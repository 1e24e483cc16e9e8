"""Models that are damaged, incomplete, of something else, or out to run code."""

import os
import pickle
import shutil
import zipfile

import numpy as np
import safetensors.numpy
from bad_inputs.row import Damage, Row, both, cut, edit, edit_json, flip, remove, set_keys, write

RECOMMEND = "recommend --model m --history i1 i2"
EVALUATE = "evaluate --data DATA --model m"
FINETUNE = "finetune RECIPE --model m --data DATA --output o --max_steps 2"
EXPORT = "export --model m --output o"
WEIGHTS = r"model\.safetensors"


class _Evil:
    """A pickle that runs a command where it is loaded."""

    def __reduce__(self):
        return os.system, ("touch marker",)


EVIL = pickle.dumps(_Evil())


def evil_archive(path) -> None:
    """A file as torch.save makes it, with such a pickle inside."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", EVIL)
        archive.writestr("archive/version", "3\n")


def _weights(change) -> Damage:
    """Changes tensors of model.safetensors."""

    def damage(here):
        path = here / "m" / "model.safetensors"
        tensors = safetensors.numpy.load_file(path)
        change(tensors)
        safetensors.numpy.save_file(tensors, path, {"format": "pt"})

    return damage


def _without(part: str) -> Damage:
    return _weights(lambda tensors: [tensors.pop(name) for name in list(tensors) if part in name])


def _filled(value: float) -> Damage:
    return _weights(lambda tensors: [one.fill(value) for one in tensors.values()])


def _rounded(tensors) -> None:
    name = next(name for name in tensors if "norm" not in name)
    tensors[name] = tensors[name].astype(np.int64)


def _pickled(content) -> Damage:
    def damage(here):
        (here / "m" / "model.safetensors").unlink()
        content(here / "m" / "pytorch_model.bin")

    return damage


_bare = _pickled(lambda path: path.write_bytes(EVIL))
_zipped = _pickled(evil_archive)


def _config(id: str, says: str, **values) -> Row:
    return Row(id, f"config.json {values}", RECOMMEND, says, set_keys("m/config.json", **values), seconds=30)


ROWS = [
    Row("D001", "model.safetensors is cut", RECOMMEND, WEIGHTS, cut("m/model.safetensors")),
    Row("D002", "the same, evaluated", EVALUATE, WEIGHTS, cut("m/model.safetensors")),
    Row("D003", "model.safetensors is empty", RECOMMEND, WEIGHTS, write("m/model.safetensors", "")),
    Row("D004", "model.safetensors is text", RECOMMEND, WEIGHTS, write("m/model.safetensors", "hello " * 50)),
    Row("D005", "the same cut, finetuned", FINETUNE, WEIGHTS, cut("m/model.safetensors")),
    Row("D006", "the same cut, exported", EXPORT, WEIGHTS, cut("m/model.safetensors")),
    Row("D007", "its header is flipped", RECOMMEND, WEIGHTS, flip("m/model.safetensors", 0.0, 8)),
    Row("D008", "no weights", RECOMMEND, r"model\.safetensors|weights", remove("m/model.safetensors")),
    Row("D009", "a tensor is missing", RECOMMEND, "position|embed", _without("embed_positions")),
    Row("D097", "a layer is missing, evaluated", EVALUATE, "layers", _without("layers.0.")),
    Row("D098", "a layer is missing, finetuned", FINETUNE, "layers", _without("layers.0.")),
    Row("D010", "a layer is missing, exported", EXPORT, "layers", _without("layers.0.")),
    Row("D011", "a tensor too many", RECOMMEND, "surplus", _weights(lambda one: one.update(surplus=np.zeros(3, np.float32)))),
    Row("D012", "NaN weights, recommended", RECOMMEND, "NaN|nan|finite|diverged", _filled(np.nan)),
    Row("D013", "NaN weights, evaluated", EVALUATE, "NaN|nan|finite|diverged", _filled(np.nan)),
    Row("D014", "NaN weights, exported", EXPORT, "NaN|nan|finite|diverged", _filled(np.nan)),
    Row("D015", "infinite weights", RECOMMEND, "NaN|nan|finite|diverged|inf", _filled(np.inf)),
    Row("D017", "a tensor of another shape", RECOMMEND, "shape|size|embed",
        _weights(lambda one: one.update({name: value[:3] for name, value in one.items() if "embed_positions" in name}))),
    _config("D016", "vocab_size|items|500", vocab_size=500),
    _config("D045", "shapes|vocab_size|memory", vocab_size=10**12),
    _config("D046", "layers|memory", num_hidden_layers=10**7),
    _config("D047", "hidden_size", hidden_size=-16),
    _config("D048", r"model_type|nosuch|config\.json", model_type="nosuch"),
    _config("D049", "vocab_size is -1", vocab_size=-1),
    _config("D050", "num_attention_heads is 0", num_attention_heads=0),
    _config("D051", "num_hidden_layers", num_hidden_layers="x"),
    _config("D052", "max_position_embeddings", max_position_embeddings=None),
    _config("D053", "hidden_act|swoosh", hidden_act="swoosh"),
    Row("D018", "config.json is missing", RECOMMEND, r"config\.json", remove("m/config.json")),
    Row("D019", "config.json is cut", RECOMMEND, r"config\.json|JSON", cut("m/config.json")),
    Row("D020", "config.json is a list", RECOMMEND, r"config|m", write("m/config.json", "[]")),
    Row("D021", "tokenizer.json is missing", RECOMMEND, "tokenizer", remove("m/tokenizer.json", "m/tokenizer_config.json")),
    Row("D022", "tokenizer.json is cut", RECOMMEND, "tokenizer", cut("m/tokenizer.json")),
    Row("D023", "tokenizer.json of another log", RECOMMEND, "tokens|vocabulary|items|tokenizer",
        edit("m/tokenizer.json", lambda content: content.replace(b'"i7"', b'"zz7"', 1).replace(b'"i8"', b'"i7"', 1))),
    Row("D024", "malicious pytorch_model.bin", RECOMMEND, r"pytorch_model\.bin|safetensors", _bare),
    Row("D025", "the same, evaluated", EVALUATE, r"pytorch_model\.bin|safetensors", _bare),
    Row("D026", "the same, finetuned", FINETUNE, r"pytorch_model\.bin|safetensors", _bare),
    Row("D027", "the same, exported", EXPORT, r"pytorch_model\.bin|safetensors", _bare),
    Row("D028", "malicious pytorch_model.bin, a torch archive", RECOMMEND, r"pytorch_model\.bin|safetensors", _zipped),
    Row("D029", "auto_map to code beside it", RECOMMEND, "  1  i", both(
        write("m/evil.py", "import os\nos.system('touch marker')\n"),
        set_keys("m/config.json", auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})), code=0),
    Row("D093", "a model of another log with as many items", "evaluate --data o --model RUN", "items|vocabulary",
        lambda here: _other_log(here)),
    Row("D094", "a model of a log with more items", "evaluate --data o --model RUN", "vocabulary|items",
        lambda here: _other_log(here, 50)),
    Row("D055", "run.json is missing", "publish m a/b --dry-run --output o", r"run\.json", remove("m/run.json")),
    Row("D056", "run.json is cut", "publish m a/b --dry-run --output o", r"run\.json", cut("m/run.json")),
    Row("D057", "run.json is a list", "publish m a/b --dry-run --output o", r"run\.json", write("m/run.json", "[]")),
    Row("D058", "run.json without a key", "publish m a/b --dry-run --output o", r"run\.json",
        lambda here: _drop_from_record(here, "seed")),
    Row("D060", "run.json: a report without protocol", "publish m a/b --dry-run --output o", r"run\.json",
        lambda here: _drop_from_record(here, "reports", 0, "protocol")),
    Row("D099", "run.json: validation is NaN", "publish m a/b --dry-run --output o", r"run\.json: mrr of validation is nan",
        edit_json("m/run.json", lambda one: one["validation"].update(mrr=float("nan")))),
    Row("D061", "published without weights", "publish m a/b --dry-run --output o", "weights|safetensors",
        remove("m/model.safetensors")),
    Row("D062", "published under no name", "publish m nonsense --dry-run --output o", "nonsense"),
    Row("D063", "published from nowhere", "publish nowhere a/b --dry-run --output o", "nowhere"),
    Row("D064", "published into what exists", "publish m a/b --dry-run --output e", "e", write("e/mine.txt", "mine")),
    Row("D080", "a folder without a model, exported", "export --model e --output o", "holds no model|e", write("e/x", "x")),
    Row("D082", "exported into what exists", "export --model m --output e", "e", write("e/mine.txt", "mine")),
    Row("D083", "exported with k 0", "export --model m --output o -k 0", "k"),
    Row("D084", "exported in int3", "export --model m --output o --weights int3", "--weights: invalid choice"),
]  # fmt: skip


def _other_log(here, items: int = 40) -> None:
    """o becomes a prepared log of other items."""
    from sr_transformers.data.prepare import prepare

    lines = [f"u{user},zz{(user * 7 + step * step) % items},{step + 1}" for user in range(60) for step in range(12)]
    (here / "zz.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    prepare(here / "zz.csv", here / "o")
    shutil.rmtree(here / "zz", ignore_errors=True)


def _drop_from_record(here, *path) -> None:
    """Removes a key of run.json."""
    import json

    file = here / "m" / "run.json"
    content = json.loads(file.read_text())
    part = content
    for step in path[:-1]:
        part = part[step]
    del part[path[-1]]
    file.write_text(json.dumps(content))
