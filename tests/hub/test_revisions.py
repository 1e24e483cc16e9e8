"""One name, one commit: model, vocabulary and the run's record of a repository never come from two of them."""

import json
import socket

import huggingface_hub.constants
import pytest
import torch
from loopback_hub import Repo

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.cli import main
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.evaluation import loading
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.tasks.contestants import model_contestant
from sr_transformers.finetuning.finetune import finetune

SIZE = 30


def make(folder, items, seed):
    torch.manual_seed(seed)
    config = LSRMConfig(vocab_size=SIZE + 2, hidden_size=8, max_position_embeddings=6, initializer_range=0.5)
    LSRMForCausalLM(config).save_pretrained(folder)
    build_tokenizer(items).save_pretrained(folder)
    return folder


def files_of(folder, under=""):
    return {f"{under}{path.name}": path.read_bytes() for path in folder.iterdir() if path.suffix != ".py"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models of one size whose items have other names."""
    folder = tmp_path_factory.mktemp("revisions")
    return [make(folder / name, [f"{name}-{n}" for n in range(SIZE)], seed) for seed, name in enumerate(("old", "new"))]


@pytest.fixture
def repo(hub, folders):
    """org/m with the first as revision v1 and the second as main."""
    repo = hub.repos["model", "org/m"] = Repo("model", "org/m", private=False)
    repo.refs["v1"] = repo.commit("main", files_of(folders[0]), "old")
    repo.commit("main", files_of(folders[1]), "new")
    return repo


def lists(recommender, name):
    histories = [[f"{name}-{n % SIZE}", f"{name}-{7 * n % SIZE}"] for n in range(100)]
    return recommender.recommend_batch(histories, 5)


@pytest.mark.parametrize(("revision", "place", "name"), [("v1", 0, "old"), ("main", 1, "new"), (None, 1, "new")])
def test_all_lists_of_a_revision_are_its_own(repo, folders, revision, place, name):
    found = lists(Recommender.from_pretrained("org/m", revision=revision), name)
    assert found == lists(Recommender.from_pretrained(folders[place]), name)
    commit = repo.refs[revision or "main"]
    assert Recommender.from_pretrained("org/m", revision=commit).tokenizer.convert_ids_to_tokens(2) == f"{name}-0"
    assert Checkpoint("org/m", revision=revision).commit == commit


def test_a_branch_that_moves_between_two_loads_is_not_followed(repo, folders):
    opened = Checkpoint("org/m")
    model = opened.model()
    repo.commit("main", files_of(folders[0]), "back to the old one")
    recommender = Recommender(model, opened.tokenizer())
    assert lists(recommender, "new") == lists(Recommender.from_pretrained(folders[1]), "new")
    assert opened.commit != Checkpoint("org/m").commit


def test_a_revision_that_is_none(repo, capsys):
    with pytest.raises(OSError, match="org/m has no revision v9 on the Hub; give a branch, a tag or a commit"):
        Recommender.from_pretrained("org/m", revision="v9")
    assert main(["recommend", "--model", "org/m", "--revision", "v9", "--history", "new-1"]) == 2
    assert "org/m has no revision v9" in capsys.readouterr().err


def test_a_repository_without_a_model(hub):
    hub.repos["model", "org/empty"] = Repo("model", "org/empty", private=False)
    with pytest.raises(FileNotFoundError, match=r"org/empty holds no model \(config.json is missing\)"):
        Checkpoint("org/empty")


# Arguments of the Hub


def test_every_argument_reaches_every_load(repo, monkeypatch, tmp_path):
    given = {
        "token": "hf_writer",
        "cache_dir": tmp_path / "mine",
        "subfolder": "",
        "local_files_only": False,
        "trust_remote_code": True,
    }
    seen = {}

    def spy(kind):
        plain = getattr(loading, kind).from_pretrained

        def from_pretrained(name, **options):
            seen[kind] = {key: options[key] for key in ("revision", *given)}
            return plain(name, **options)

        monkeypatch.setattr(getattr(loading, kind), "from_pretrained", from_pretrained)

    for kind in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"):
        spy(kind)
    Recommender.from_pretrained("org/m", revision="v1", **given)
    expected = {"revision": repo.refs["v1"], **given}
    assert seen == dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), expected)


def test_the_token_opens_a_private_repository(hub, folders, monkeypatch):
    secret = hub.repos["model", "org/secret"] = Repo("model", "org/secret", private=True)
    secret.commit("main", files_of(folders[0]), "private")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(OSError, match="org/secret: there is no such folder, and the Hub did not give it"):
        Recommender.from_pretrained("org/secret")
    found = lists(Recommender.from_pretrained("org/secret", token="hf_writer"), "old")
    assert found == lists(Recommender.from_pretrained(folders[0]), "old")


def test_all_files_go_to_the_cache_that_is_given(repo, tmp_path):
    Recommender.from_pretrained("org/m", cache_dir=tmp_path / "mine")
    names = {path.name for path in (tmp_path / "mine").rglob("*") if not path.is_dir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    default = tmp_path / "cache"
    assert not [path for path in default.rglob("*") if "snapshots" in path.parts]


def test_a_subfolder_holds_model_and_vocabulary(hub, folders, tmp_path):
    repo = hub.repos["model", "org/many"] = Repo("model", "org/many", private=False)
    repo.commit("main", files_of(folders[1]) | files_of(folders[0], "small/one/"), "two models")
    expected = lists(Recommender.from_pretrained(folders[0]), "old")
    assert lists(Recommender.from_pretrained("org/many", subfolder="small/one"), "old") == expected
    assert lists(Recommender.from_pretrained(folders[0].parent, subfolder=folders[0].name), "old") == expected
    with pytest.raises(FileNotFoundError, match=r"org/many/large holds no model"):
        Recommender.from_pretrained("org/many", subfolder="large")


def test_local_files_only_asks_nobody(repo, hub, folders):
    with pytest.raises(OSError, match="the Hub did not give it"):
        Recommender.from_pretrained("org/m", local_files_only=True)
    Recommender.from_pretrained("org/m", revision="v1")
    hub.requests.clear()
    found = lists(Recommender.from_pretrained("org/m", revision="v1", local_files_only=True), "old")
    assert found == lists(Recommender.from_pretrained(folders[0]), "old")
    assert hub.requests == []


def test_offline_the_cache_is_enough(repo, hub, folders, monkeypatch):
    Recommender.from_pretrained("org/m")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert lists(Recommender.from_pretrained("org/m"), "new") == lists(Recommender.from_pretrained(folders[1]), "new")
    assert hub.requests == []


def test_a_hub_that_breaks_off_is_no_repository_without_files(repo, hub):
    hub.fail("HEAD", "tokenizer_config.json", times=99, status=500)
    with pytest.raises(OSError, match="the Hub did not give it"):
        Recommender.from_pretrained("org/m")


def test_code_beside_a_model_runs_for_those_only_who_ask(hub, folders, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    files = files_of(folders[0])
    config = json.loads(files["config.json"]) | {
        "model_type": "theirs",
        "auto_map": {"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"},
    }
    code = "raise RuntimeError('their code ran')\n"
    repo = hub.repos["model", "org/theirs"] = Repo("model", "org/theirs", private=False)
    repo.commit("main", files | {"config.json": json.dumps(config).encode(), "theirs.py": code.encode()}, "code")
    with pytest.raises(ValueError, match="custom code"):
        Recommender.from_pretrained("org/theirs")
    with pytest.raises(ValueError, match="their code ran"):
        Recommender.from_pretrained("org/theirs", trust_remote_code=True)


# Commands


@pytest.fixture
def published(hub, finished_run):
    """org/run: a finished run as v1; main names other items, so every command that takes main is found out."""
    repo = hub.repos["model", "org/run"] = Repo("model", "org/run", private=False)
    files = {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file() and path.suffix != ".py"}
    repo.refs["v1"] = repo.commit("main", files, "the run")
    tokenizer = json.loads(files["tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {f"9{name}" if token > 1 else name: token for name, token in vocabulary.items()}
    record = json.loads(files["run.json"])
    record["data"]["counts"]["users"] = 1
    config = json.loads(files["config.json"]) | {"items_fingerprint": None}
    other = {"tokenizer.json": tokenizer, "run.json": record, "config.json": config}
    other = {name: json.dumps(content).encode() for name, content in other.items()}
    repo.commit("main", files | other, "other names")
    return repo


def test_recommend_and_export_take_a_revision(published, capsys, tmp_path):
    for revision, shown in (([], "9"), (["--revision", "v1"], "")):
        assert (
            main(["recommend", "--model", "org/run", *revision, "--history", f"{shown}3", f"{shown}4", "-k", "30"]) == 0
        )
        items = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
        assert all(str(item).startswith("9") for item in items) == bool(shown)
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    assert (
        main(["export", "--model", "org/run", "--revision", "v1", "--output", str(tmp_path / "graph"), "-k", "5"]) == 0
    )
    assert "930" not in json.loads((tmp_path / "graph" / "tokenizer.json").read_text())["model"]["vocab"]


def test_evaluate_takes_a_revision_for_each_model(published, markov_prepared, capsys):
    arguments = ["evaluate", "--data", str(markov_prepared.path), "--k", "5"]
    commit = published.refs["v1"]
    assert main([*arguments, "--model", "org/run", "--revision", commit, "--model", "org/run", "--revision", "v1"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "| org/run@" in line]
    assert [row[1].strip() for row in rows] == [f"org/run@{commit}", "org/run@v1"]
    assert rows[0][2:-1] == rows[1][2:-1]
    # main names other items, of which the log has none
    assert main([*arguments, "--model", "org/run", "--revision", "v1", "--model", "org/run"]) == 2
    assert "sr-transformers evaluate: org/run knows none of the 30 items" in capsys.readouterr().err


def test_compare_takes_a_revision_for_each_run_on_the_hub(published, finished_run, markov_prepared, tmp_path, capsys):
    commit = published.refs["v1"]
    arguments = ["--data", str(markov_prepared.path), "--json", str(tmp_path / "x.json")]
    assert main(["compare", "org/run", str(finished_run), "org/run", *arguments, "--revision", "v1", commit]) == 0
    entries = json.loads((tmp_path / "x.json").read_text())["entries"]
    assert [one["name"] for one in entries] == ["org/run@v1", "run", f"org/run@{commit}"]
    assert all(one["metrics"]["hr@10"]["difference"] == 0 for one in entries[1:])
    assert main(["compare", "org/run", str(finished_run), *arguments, "--revision", "v1", "v2"]) == 2
    assert "--revision has 2 of 1 runs on the Hub" in capsys.readouterr().err
    assert main(["compare", "org/run", str(finished_run), *arguments]) == 2  # main names items that the log lacks
    assert "org/run knows none of the 30 items" in capsys.readouterr().err


def test_a_log_is_sampled_from_a_revision(published, markov_prepared, tmp_path, capsys):
    words = ["scaling", "sample", "--model", "org/run", "--data", str(markov_prepared.path), "--interactions", "40"]
    assert main([*words, "--revision", "v9", "--output", str(tmp_path / "out")]) == 2
    assert "org/run has no revision v9" in capsys.readouterr().err
    assert main([*words, "--revision", "v1", "--output", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["--revision", "v1", "--model", "a/b"], "--revision v1 stands before any --model"),
        (["--model", "a/b", "--revision", "v1", "--revision", "v2"], "--model a/b has the revision v1 already"),
    ],
)
def test_a_revision_that_belongs_to_no_model(models, message, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--data", "x", *models])
    assert message in capsys.readouterr().err


def test_tasks_read_the_record_of_the_same_commit(published, markov_prepared, capsys):
    with pytest.raises(ValueError, match="org/run was trained on a log with users 1"):
        model_contestant("x", ["org/run"], markov_prepared)
    facts = model_contestant("x", [Checkpoint("org/run", revision="v1")], markov_prepared).facts
    assert facts["training"][0]["seed"] == 42
    arguments = ["tasks", "--data", str(markov_prepared.path), "--task", "overall", "--no-baselines", "--draws", "5"]
    assert main([*arguments, "--model", "mine=org/run", "--revision", "v1"]) == 0
    assert main([*arguments, "--model", "mine=org/run"]) == 2
    capsys.readouterr()


def test_finetune_begins_with_the_revision_and_notes_its_commit(published, markov_prepared, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(
        "model: {hidden_size: 16, num_hidden_layers: 2, max_position_embeddings: 8}\n"
        "training: {max_steps: 1, precision: fp32, disable_tqdm: true}\n"
    )
    arguments = [
        str(tmp_path / "tiny.yaml"),
        "--model",
        "org/run",
        "--data",
        str(markov_prepared.path),
        "--init",
        "mean",
    ]
    assert main(["finetune", *arguments, "--revision", "v1", "--output", str(tmp_path / "v1")]) == 0
    assert "items: 30 known, 0 new" in capsys.readouterr().out
    origin = json.loads((tmp_path / "v1" / "run.json").read_text())["recipe"]["origin"]
    assert (origin["model"], origin["commit"]) == ("org/run", published.refs["v1"])
    assert main(["finetune", *arguments, "--output", str(tmp_path / "main")]) == 0
    assert "items: 0 known, 30 new" in capsys.readouterr().out


def test_the_page_shows_the_revisions_that_were_asked_for(published, monkeypatch, capsys, tmp_path):
    gradio = pytest.importorskip("gradio", reason="the page needs the extra demo")
    from sr_transformers.demo import app, space

    loaded, plain = [], app.DemoSession.load
    monkeypatch.setattr(app.DemoSession, "load", lambda *given: loaded.append(plain(*given)) or loaded[-1])
    monkeypatch.setattr(gradio.Blocks, "launch", lambda self, **_: None)
    with socket.socket() as free:  # the page of another test may have the usual port
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert main(["demo", "org/run", "--revision", "v1", "--compare", "org/run", "--port", port]) == 0
    assert [one.name for one in loaded] == ["org/run@v1", "org/run"]
    assert [one.choices()[0][1].startswith("9") for one in loaded] == [False, True]
    assert main(["demo", "org/run", "--compare-revision", "v1"]) == 2
    assert "add --compare" in capsys.readouterr().err
    space.write_space("org/run", tmp_path / "space", "org/run", revision="v1", compare_revision="v2")
    assert (
        "build_app('org/run', compare='org/run', revision='v1', compare_revision='v2'"
        in (tmp_path / "space" / "app.py").read_text()
    )


@pytest.mark.parametrize(
    "command", ["recommend", "evaluate", "compare", "tasks", "finetune", "export", "demo", "scaling sample"]
)
def test_help_tells_of_revisions(command, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert "branch, tag or commit" in " ".join(capsys.readouterr().out.split())


def test_a_folder_has_no_revision(folders, capsys):
    assert main(["recommend", "--model", str(folders[0]), "--revision", "v1", "--history", "old-1"]) == 2
    assert f"{folders[0]} is a folder, which has no revision v1" in capsys.readouterr().err


def test_an_adapter_asks_its_model_for_its_own_revision(repo, hub, folders, tmp_path):
    """transformers would ask the model's repository for the revision of the adapter."""
    peft = pytest.importorskip("peft", reason="adapters need the extra lora")
    opened = Checkpoint("org/m", revision="v1")
    torch.manual_seed(0)
    adapted = peft.get_peft_model(
        opened.model(), peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    expected = lists(Recommender(adapted.base_model.model, opened.tokenizer()), "old")
    adapted.save_pretrained(tmp_path / "adapter")
    files = files_of(tmp_path / "adapter")
    settings = json.loads(files["adapter_config.json"]) | {"base_model_name_or_path": "org/m", "revision": "v1"}
    there = hub.repos["model", "org/adapter"] = Repo("model", "org/adapter", private=False)
    there.commit("release", files | {"adapter_config.json": json.dumps(settings).encode()}, "an adapter")
    found = lists(Recommender.from_pretrained("org/adapter", revision="release"), "old")
    assert [[one.item for one in each] for each in found] == [[one.item for one in each] for each in expected]
    probabilities = [[[one.probability for one in each] for each in some] for some in (found, expected)]
    assert probabilities[0] == [pytest.approx(each, rel=1e-5) for each in probabilities[1]]


def test_finetune_takes_an_opened_checkpoint(published, markov_prepared, tmp_path):
    from sr_transformers import Recipe

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 8}
    recipe = Recipe("tiny", shape, {"max_steps": 1, "precision": "fp32", "disable_tqdm": True})
    record = finetune(Checkpoint("org/run", revision="v1"), markov_prepared, recipe, tmp_path / "run", init="mean")
    assert record.recipe["origin"]["items"]["known"] == 30
