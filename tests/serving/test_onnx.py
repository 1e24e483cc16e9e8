import json
import logging
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_mix import fill_mix
from transformers import AutoTokenizer

import sr_transformers
from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.cli import main
from sr_transformers.data.vocabulary import build_tokenizer, encode_items
from sr_transformers.lsrm.identity_lsrm import items_fingerprint
from sr_transformers.serving.onnx import NextItems, export_onnx

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

ITEMS = [f"i{n}" for n in range(60)]
WINDOW = 8
# Of all kinds: one item, full window, longer than the window, with repeats.
HISTORIES = [
    ["i3"],
    ["i1", "i2", "i3"],
    [f"i{n}" for n in range(8)],
    [f"i{n}" for n in range(20, 40)],
    ["i5", "i5", "i6", "i5"],
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=len(ITEMS) + 2, hidden_size=32, max_position_embeddings=WINDOW, initializer_range=0.2
    )
    folder = tmp_path_factory.mktemp("model")
    LSRMForCausalLM(config).save_pretrained(folder)
    build_tokenizer(ITEMS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    return export_onnx(checkpoint, tmp_path_factory.mktemp("onnx") / "float32", k=20)


def encode(histories, tokenizer):
    tokens = [encode_items(tokenizer, history) for history in histories]
    width = max(map(len, tokens))
    return np.array([[0] * (width - len(row)) + row for row in tokens], np.int64)


def run(path, histories, exclude_seen):
    """Items and probabilities by onnxruntime alone, a list of pairs per history."""
    session = onnxruntime.InferenceSession(str(path))
    tokenizer = AutoTokenizer.from_pretrained(path.parent)
    inputs = {"input_ids": encode(histories, tokenizer), "exclude_seen": np.full(len(histories), exclude_seen)}
    items, probabilities = session.run(["items", "probabilities"], inputs)
    return [
        list(zip(tokenizer.convert_ids_to_tokens(row), found, strict=True))
        for row, found in zip(items.tolist(), probabilities.tolist(), strict=True)
    ]


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_graph_gives_what_the_recommender_gives(exported, checkpoint, exclude_seen, count):
    recommender = Recommender.from_pretrained(checkpoint)
    expected = recommender.recommend_batch(HISTORIES[:count], k=20, exclude_seen=exclude_seen)
    for found, wanted in zip(run(exported, HISTORIES[:count], exclude_seen), expected, strict=True):
        assert [item for item, _ in found] == [one.item for one in wanted]
        assert [p for _, p in found] == pytest.approx([one.probability for one in wanted], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "blocks",
    [
        {"position": "rotary", "norm": "rms", "hidden_act": "swiglu", "residual": "gated", "head": "scaled"},
        {"position": "relative", "attention": "pointwise", "head": "normalised"},
    ],
    ids=["rotary with all", "relative"],
)
def test_a_graph_of_other_blocks_gives_what_the_recommender_gives(blocks, tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": len(ITEMS) + 2, "hidden_size": 32, "max_position_embeddings": WINDOW}
    model = LSRMForCausalLM(LSRMConfig(**sizes, initializer_range=0.2, **blocks))
    for name, parameter in model.named_parameters():
        if "attention_bias" in name or "temperature" in name:  # zero at first
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "model")
    build_tokenizer(ITEMS).save_pretrained(tmp_path / "model")
    graph = export_onnx(tmp_path / "model", tmp_path / "onnx", k=20)
    expected = Recommender.from_pretrained(tmp_path / "model").recommend_batch(HISTORIES, k=20, exclude_seen=True)
    for found, wanted in zip(run(graph, HISTORIES, True), expected, strict=True):
        assert [item for item, _ in found] == [one.item for one in wanted]
        assert [p for _, p in found] == pytest.approx([one.probability for one in wanted], rel=1e-4, abs=1e-6)


def test_a_model_that_reads_time_is_refused(tmp_path):
    LSRMForCausalLM(LSRMConfig(vocab_size=len(ITEMS) + 2, hidden_size=32, attention_time=True)).save_pretrained(
        tmp_path
    )
    build_tokenizer(ITEMS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"attention_time.*Serve it with Recommender"):
        export_onnx(tmp_path, tmp_path / "onnx")


@pytest.mark.parametrize(("filter_seen", "left_out"), [(None, True), (True, True), (False, False)])
def test_seen_items_are_named_if_the_model_was_evaluated_so(checkpoint, tmp_path, filter_seen, left_out):
    model = LSRMForCausalLM.from_pretrained(checkpoint)
    model.config.filter_seen = filter_seen
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path / "model")
    path = export_onnx(tmp_path / "model", tmp_path / "onnx", k=60)
    session, tokens = onnxruntime.InferenceSession(str(path)), np.array([[3, 4, 5], [0, 6, 7]])
    (unsaid,) = session.run(["items"], {"input_ids": tokens})
    for said in (True, False):
        (found,) = session.run(["items"], {"input_ids": tokens, "exclude_seen": np.array([said, said])})
        assert (found == unsaid).all() == (said == left_out)
        assert ({3, 4, 5} & set(found[0].tolist()) == set()) == said


def test_a_vocabulary_of_other_items_is_not_exported(checkpoint, tmp_path):
    model = LSRMForCausalLM.from_pretrained(checkpoint)
    model.config.items_fingerprint = items_fingerprint(ITEMS[::-1])
    model.save_pretrained(tmp_path / "model")
    build_tokenizer(ITEMS).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="the model's items are not those of the vocabulary of"):
        export_onnx(tmp_path / "model", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("length", [1, 7, 8, 9, 31])
def test_any_length_and_any_padding_will_do(exported, length):
    history = [f"i{n % 60}" for n in range(length)]
    (alone,) = run(exported, [history], True)
    beside_a_longer_one, _ = run(exported, [history, [f"i{n}" for n in range(45)]], True)
    assert [item for item, _ in alone] == [item for item, _ in beside_a_longer_one]
    assert [p for _, p in alone] == pytest.approx([p for _, p in beside_a_longer_one], rel=1e-4, abs=1e-6)


def test_unknown_items_are_masked(exported):
    (one,), (two,) = run(exported, [["i1", "never heard of", "i2"]], False), run(exported, [["i1", "i2"]], False)
    assert [item for item, _ in one] == [item for item, _ in two]


def test_when_too_few_items_are_left_the_rest_is_padding(exported):
    (found,) = run(exported, [ITEMS[:55]], True)
    assert {item for item, _ in found[:5]} == set(ITEMS[55:])
    assert all(item == "[PAD]" and p == 0 for item, p in found[5:])


def test_transformers_own_runner_loads_it(exported, checkpoint):
    from transformers.exporters import ExportedModel

    model = ExportedModel.from_pretrained(exported.parent)
    tokens = torch.tensor([encode_items(AutoTokenizer.from_pretrained(checkpoint), HISTORIES[1])])
    output = model(input_ids=tokens, exclude_seen=torch.tensor([True]))
    wanted = Recommender.from_pretrained(checkpoint).recommend(HISTORIES[1], k=20)
    assert output["probabilities"][0].tolist() == pytest.approx([one.probability for one in wanted], rel=1e-4)
    assert json.loads((exported.parent / "export.json").read_text())["export_format"] == "onnx"


@pytest.mark.parametrize(("weights", "factor", "tolerance"), [("int8", 0.45, 0.05), ("int4", 0.45, 0.5)])
def test_quantized_weights_are_smaller_and_near(exported, checkpoint, tmp_path, capsys, weights, factor, tolerance):
    logging.disable(logging.WARNING)
    try:
        arguments = ["--model", str(checkpoint), "--output", str(tmp_path / weights), "-k", "60", "--weights", weights]
        assert main(["export", *arguments]) == 0
    finally:
        logging.disable(logging.NOTSET)
    path = tmp_path / weights / "model.onnx"
    assert f"bytes, {weights}, the best 60 items" in capsys.readouterr().out
    whole = exported.with_name("model.onnx.data").stat().st_size
    assert path.with_name("model.onnx.data").stat().st_size < factor * whole
    expected = Recommender.from_pretrained(checkpoint).recommend_batch(HISTORIES, k=60, exclude_seen=False)
    for found, wanted in zip(run(path, HISTORIES, False), expected, strict=True):
        near, truth = dict(found), {one.item: one.probability for one in wanted}
        assert set(near) == set(ITEMS)
        distance = sum(abs(near[item] - truth[item]) for item in ITEMS) / 2  # total variation
        assert 0 < distance < tolerance


@pytest.mark.parametrize("k", [0, 61])
def test_a_k_that_is_not_there_is_refused(checkpoint, k):
    with pytest.raises(ValueError, match=f"k is {k}; this vocabulary has 60 items"):
        NextItems(Recommender.from_pretrained(checkpoint).model, k)


def test_no_path_of_this_machine_is_in_the_graph(exported):
    written = b"".join(path.read_bytes() for path in exported.parent.iterdir())
    for place in (str(Path(sr_transformers.__file__).parents[1]), sys.prefix, str(exported.parent.parent)):
        assert place.encode() not in written


def test_a_full_disk_leaves_no_half_folder(checkpoint, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"new: problem writing .* Nothing was left there"):
            export_onnx(checkpoint, tmp_path / "new", 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_wrong_requests_are_refused(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="weights is 'int2'; choose from float32, int8, int4"):
        export_onnx(checkpoint, tmp_path / "new", weights="int2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        export_onnx(checkpoint, tmp_path / "full")
    monkeypatch.setattr("sr_transformers.serving.onnx.PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ValueError, match=r"needs no_such_package: pip install 'sr-transformers\[onnx\]'"):
        export_onnx(checkpoint, tmp_path / "new")


TIMED = ("recency", "bigrams", "items", "baskets", "clock")
ENDS = [2, 9, 1_700_000_010, 1_700_000_060]  # of stretches of time


def with_history(parts, folder, **more):
    """A model whose tables and counts are filled."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "max_position_embeddings": WINDOW, "initializer_range": 0.2}
    config = LSRMConfig(
        vocab_size=len(ITEMS) + 2, history=list(parts), num_successors=3, time_unit=7.0, **sizes, **more
    )
    model = LSRMForCausalLM(config)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    if "mix" in parts:
        fill_mix(model, ENDS)
    model.save_pretrained(folder)
    build_tokenizer(ITEMS).save_pretrained(folder)
    return folder


SELECTIONS = [((*TIMED, "mix"), True)]
SELECTIONS += [
    pytest.param(parts, asked, marks=pytest.mark.slow)
    for parts, asked in (
        ((*TIMED, "mix"), False),
        ((*TIMED[:3], "mix"), False),
        (TIMED[:3], False),
        (("clock",), False),
    )
]


@pytest.mark.parametrize(("parts", "query_time"), SELECTIONS)
def test_history_is_inside_the_graph(parts, query_time, tmp_path):
    """Repeats, some within a basket, far beyond the window; one user alone and several."""
    folder = with_history(parts, tmp_path / "model", query_time=query_time)
    session = onnxruntime.InferenceSession(str(export_onnx(folder, tmp_path / "onnx", k=60)))
    timed = bool(set(parts) & set(TIMED[3:]))
    names = ["input_ids", *(["times"] if timed else []), *(["query_times"] if query_time else [])]
    assert [one.name for one in session.get_inputs()] == names
    recommender = Recommender.from_pretrained(folder)
    rng = np.random.default_rng(0)
    histories, times = list(HISTORIES), [[5], [1, 1, 4], list(range(8)), [9] * 20, [3, 3, 3, 50]]
    for length in (2, 30, 40):
        histories.append([ITEMS[n] for n in rng.integers(0, 9, length)])
        times.append(np.sort(1_700_000_000 + rng.integers(0, 2 * length, length)).tolist())
    tokens = encode(histories, recommender.tokenizer)
    moments = np.array([[-7] * (tokens.shape[1] - len(row)) + row for row in times], np.int64)
    for rows in (slice(0, 1), slice(4, 8), slice(0, 8)):
        inputs = {"input_ids": tokens[rows], "exclude_seen": np.array([False])}
        inputs |= {"times": moments[rows]} if timed else {}
        asked = {"k": 60, "exclude_seen": False, "times": times[rows] if timed else None}
        if query_time:
            asked["query_time"] = [row[-1] + 3 * place for place, row in enumerate(times[rows])]
            inputs["query_times"] = np.array(asked["query_time"])
        items, probabilities = session.run(["items", "probabilities"], inputs)
        wanted = recommender.recommend_batch(histories[rows], **asked)
        for found, p, row in zip(items, probabilities.tolist(), wanted, strict=True):
            named = dict(zip(recommender.tokenizer.convert_ids_to_tokens(found.tolist()), p, strict=True))
            assert named == pytest.approx({one.item: one.probability for one in row}, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("parts", [(), ("recency", "bigrams"), ("recency", "items", "baskets", "clock")])
def test_unknown_items_are_left_out_as_by_the_recommender(parts, tmp_path):
    folder = with_history(parts, tmp_path / "model")
    session = onnxruntime.InferenceSession(str(export_onnx(folder, tmp_path / "onnx", k=60)))
    recommender = Recommender.from_pretrained(folder)
    rows = [[5, 6, 5, 1, 9, 5, 1, 6], [0, 0, 7, 8, 9, 1, 1, 1], [5, 6, 7, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 1, 1, 1]]
    inputs = {"input_ids": np.array(rows), "exclude_seen": np.array([False])}
    times = np.arange(8)[None].repeat(4, 0) // 2 * 86_400
    if recommender.scorer.needs_times:
        inputs["times"] = times
    items, probabilities = session.run(["items", "probabilities"], inputs)
    name_of = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens
    for row, moments, found, chances in zip(rows[:3], times.tolist(), items, probabilities, strict=False):
        history = [name_of(token) if token > 1 else "never seen" for token in row if token]
        told = [moment for token, moment in zip(row, moments, strict=True) if token]
        more = {"times": [told]} if recommender.scorer.needs_times else {}
        expected = recommender.recommend_batch([history], k=60, exclude_seen=False, **more)[0]
        assert [name_of(token) for token in found.tolist()] == [one.item for one in expected]
        assert chances == pytest.approx([one.probability for one in expected], rel=1e-4, abs=1e-6)
    assert not items[3].any()
    assert not probabilities[3].any()


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_tables_of_history_are_not_rounded(weights, tmp_path):
    folder = with_history(("recency",), tmp_path / "model")
    with pytest.raises(ValueError, match=r'has tables of history \(recency\).*use weights="float32"'):
        export_onnx(folder, tmp_path / "onnx", weights=weights)
    assert not (tmp_path / "onnx").exists()
