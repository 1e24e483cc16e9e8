"""A checkpoint as one ONNX graph: token histories in, the best next items and their probabilities out.

The graph does what `Recommender` does between encoding and decoding: it takes the window, masks padding, scores, takes
what is no item and (if asked) seen items out, and picks the k best. Batch and length are dynamic. Export goes through
`transformers.exporters`, transformers' own ONNX path (on torch.export); optimum-onnx does not take transformers 5.

Weights: "float32" is the checkpoint. "int8" is transformers' OnnxRuntimeQuantizer: the matrices and the item table in 8
bits (the table once, although it serves twice), what is multiplied with them quantized at run time. "int4" is ONNX
Runtime's blockwise quantizer: 4 bits with a scale per 32 weights, computed in float; the head gets a table of its own.

A model with `history` computes it inside the graph (`onnx_history`), from all of `input_ids` and, where it reads
moments, the input `times`; `query_times` says when it is asked if the model is told that. It is written as float32
only.

It refuses a k that the vocabulary does not have, and a folder that has something in it. A folder is whole or not there.
ONNX Runtime's telemetry is off (ORT_DISABLE_TELEMETRY) unless the environment says otherwise.
"""

import os

# ONNX Runtime, which transformers imports, would tell its makers of its use and keep a number of this machine at home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

from sr_transformers.data.staging import check_output, staged
from sr_transformers.data.vocabulary import NUM_SPECIAL, PAD_ID
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.lsrm.configuration_lsrm import LAGS
from sr_transformers.lsrm.identity_lsrm import check_same_items, tokenizer_fingerprint
from sr_transformers.lsrm.scoring_lsrm import excludes_seen, item_range, only_items
from sr_transformers.serving.onnx_history import BEYOND, DenseHistory, dense_clock

DEFAULT_K = 100
WEIGHTS = ("float32", "int8", "int4")
INT4_BLOCK = 32
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class NextItems(nn.Module):
    """The function that is exported.

    Args:
        model: a causal language model over item tokens.
        k: items to return, at most the number of items.

    Raises:
        ValueError: for a k that is not in [1, number of items].
    """

    def __init__(self, model: PreTrainedModel, k: int = DEFAULT_K):
        super().__init__()
        self.items = item_range(model.config)
        num_items = self.items[1] - self.items[0]
        if not 1 <= k <= num_items:
            raise ValueError(f"k is {k}; this vocabulary has {num_items} items, choose from 1 to {num_items}.")
        self.model, self.k = model, k
        self.window = model.config.max_position_embeddings
        self.parts = tuple(getattr(model.config, "history", ()))
        self.history = DenseHistory(model) if getattr(model, "history", None) is not None else None

    def forward(
        self,
        input_ids: torch.Tensor,
        exclude_seen: torch.Tensor,
        times: torch.Tensor | None = None,
        query_times: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The next items.

        Args:
            input_ids: `(B, T)` int64 tokens, oldest first, padded with 0. Unknown items (token 1) are left out, as
                everywhere. T may exceed the window: the most recent items are read, all of them count as seen.
            exclude_seen: `(B,)` bool, whether to take the items of this history out; `(1,)` is for all of them. The
                graph that `export_onnx` writes need not be given it: then it does as the model was validated and tested
                (`filter_seen` of its configuration; True for one that was not).
            times: `(B, T)` int64 moments of these tokens in the unit of the log, for a model that reads them and only
                for such a one; anything for padding.
            query_times: `(B,)` int64, when it is asked what comes next, for a model that is told (`query_time`).

        Returns:
            items: `(B, k)` int64 tokens, best first; 0 where fewer than k items are left, and everywhere for a history
                without a known item.
            probabilities: `(B, k)` float32, the model's, over all items whether seen or not; 0 there.
        """
        input_ids, times = _only_known(input_ids, times, self.items)
        # The window is always full, on the left with padding: so its width is fixed and T is free.
        recent = nn.functional.pad(input_ids, (self.window, 0), value=PAD_ID)[:, -self.window :]
        mask = (recent >= NUM_SPECIAL).long()
        asked: dict[str, Any] = {
            "input_ids": recent,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "use_cache": False,
        }
        if self.parts:
            model: Any = self.model
            whole = nn.functional.pad(input_ids, (self.window + LAGS, 0), value=PAD_ID)
            if times is not None:
                times = nn.functional.pad(times, (self.window + LAGS, 0))
                if "clock" in self.parts:
                    asked["clock"] = dense_clock(whole, times, query_times)[:, -self.window :]
            hidden = model.model(**asked).last_hidden_state[:, -1:]
            logits = model.score_items(hidden)[:, 0]
            if self.history is not None:
                logits = self.history(logits, hidden, whole, times, query_times)
        else:
            logits = self.model(**asked, logits_to_keep=1).logits[:, -1]
        scores = only_items(logits.float(), self.items, -torch.inf)
        log_z = scores.logsumexp(1, keepdim=True)
        seen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, input_ids, True)
        allowed = scores.masked_fill(seen & exclude_seen[:, None], -torch.inf)
        best = allowed.topk(self.k, dim=1)
        left = (best.values > -torch.inf) & (input_ids[:, -1:] != PAD_ID)
        items = torch.where(left, best.indices, torch.full_like(best.indices, PAD_ID))
        probabilities = torch.where(left, (best.values - log_z).exp(), torch.zeros_like(best.values))
        return {"items": items, "probabilities": probabilities}


def _only_known(
    ids: torch.Tensor, times: torch.Tensor | None, items: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`(B, T)` items with their moments, moved together to the right in their order, and padding on the left.

    The row of the unknown token has learned nothing: a query made of it would be noise.
    """
    position = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape[0], -1)
    known = (ids >= items[0]) & (ids < items[1])
    order = (known.long() * BEYOND + position).sort(1).values % BEYOND
    found = ids.masked_fill(~known, PAD_ID).gather(1, order)
    return found, None if times is None else times.gather(1, order)


def export_onnx(
    name_or_path: str | Path | Checkpoint, output: str | Path, k: int = DEFAULT_K, weights: str = "float32"
) -> Path:
    """Writes `model.onnx` (weights in `model.onnx.data`), its description and the item vocabulary.

    Args:
        name_or_path: folder or Hub id of a checkpoint; a `Checkpoint` for a revision of it.
        output: folder to make; it must not exist or be empty.
        k: items that the graph returns.
        weights: "float32", "int8" or "int4"; the head of this file tells them apart.

    Returns:
        The graph's file.

    Raises:
        FileExistsError: if `output` has something in it.
        OSError: if it cannot be written; nothing is left then.
        ValueError: for unknown weights, if the packages of the extra `onnx` are missing, if the vocabulary is not the
            model's, or as `NextItems`.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights is {weights!r}; choose from {', '.join(WEIGHTS)}.")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX export needs {', '.join(missing)}: pip install 'sr-transformers[onnx]'.")
    output = Path(output)
    check_output(output)  # before the work
    checkpoint = name_or_path if isinstance(name_or_path, Checkpoint) else Checkpoint(name_or_path)
    model, tokenizer = checkpoint.model(dtype=torch.float32, device_map="cpu").eval(), checkpoint.tokenizer()
    check_same_items(model.config, tokenizer_fingerprint(tokenizer), f"the vocabulary of {checkpoint.name}")
    history = getattr(model.config, "history", ())
    if history and weights != "float32":
        raise ValueError(
            f"{checkpoint.name} has tables of history ({', '.join(history)}), which are written as they are only; "
            'use weights="float32".'
        )
    if getattr(model.config, "attention_time", False):
        raise ValueError(
            f"{checkpoint.name} reads when interactions happened (attention_time), and the graph that is written here "
            "takes items alone. Serve it with Recommender."
        )
    # Two rows, three items: sizes of 1 would be taken for constants.
    sample = {
        "input_ids": torch.tensor([[NUM_SPECIAL] * 3, [PAD_ID, NUM_SPECIAL, NUM_SPECIAL]]),
        "exclude_seen": torch.tensor([True, False]),
    }
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    shapes = {"input_ids": {0: batch, 1: length}, "exclude_seen": {0: batch}}
    if getattr(model.config, "needs_times", False):
        sample["times"] = torch.tensor([[1, 1, 2], [0, 3, 4]])
        shapes["times"] = {0: batch, 1: length}
    if getattr(model.config, "query_time", False):
        sample["query_times"] = torch.tensor([2, 5])
        shapes["query_times"] = {0: batch}
    config = OnnxConfig(dynamic_shapes=shapes)
    if weights == "int8":
        # Transpose: the tied head is the transposed table.
        operations = OnnxRuntimeDynamicConfig(op_types_to_quantize=["MatMul", "Gather", "Transpose"])
        config.quantizer = OnnxRuntimeQuantizer(operations)
    elif weights == "int4":
        config.opset_version = 21  # the first with 4-bit integers
        model = _untied(model)
    # Its hints ask for a PreTrainedModel; any module will do.
    exported = OnnxExporter().export(NextItems(model, k), sample, config)  # type: ignore[arg-type]
    component = exported.components["model"]
    if weights == "int4":
        component.program = _in_four_bits(component.program)
    _forget_sources(component.program)
    with staged(output) as staging:
        try:
            exported.save_pretrained(staging)
        except OSError as error:
            if error.errno is not None:
                raise
            # numpy writes the weights and does not say why it could not.
            raise OSError(f"{output}: {error}; is the disk full? Nothing was left there.") from error
        tokenizer.save_pretrained(staging)
        _set_default(staging / "model.onnx", "exclude_seen", excludes_seen(model.config))
    return output / "model.onnx"


def _set_default(path: Path, name: str, value: bool) -> None:
    """Gives an input of a graph a value for runs that do not give it: in ONNX, an initializer of its name."""
    import onnx

    graph = onnx.load(path, load_external_data=False)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    onnx.save(graph, path)


def _untied(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose head has a table of its own: the blockwise quantizer takes constants, not a transposed table."""
    model = copy.deepcopy(model)
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    return model


def _in_four_bits(program: Any) -> Any:
    """An ONNX graph with its matrices and tables in 4 bits."""
    import onnx_ir
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(
        block_size=INT4_BLOCK,
        is_symmetric=True,
        bits=4,
        op_types_to_quantize=("MatMul", "Gather"),
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    quantizer = MatMulNBitsQuantizer(onnx_ir.to_proto(program), algo_config=config)
    quantizer.process()
    return onnx_ir.from_proto(quantizer.model.model)


def _forget_sources(program: Any) -> None:
    """Takes the paths of the source files on this machine out of an ONNX graph, in place."""
    import onnx_ir

    for graph in (program.graph, *program.functions.values()):
        for node in onnx_ir.traversal.RecursiveGraphIterator(graph):
            node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
