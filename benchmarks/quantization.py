"""python benchmarks/quantization.py --model runs/ml-1m-42 --data prepared/ml-1m: what smaller weights cost.

Exports a checkpoint to ONNX with float32, int8 and int4 weights and ranks every test target with each graph under ONNX
Runtime, as it would be served: top 10 inside the graph, seen items out. The first row is the checkpoint in PyTorch, by
the library's own full ranking; the float32 graph must agree with it. Written to benchmarks/results/quantization.json:
HR@10, NDCG@10, bytes of graph and weights, and milliseconds of CPU time per history in batches of 32 and alone, on one
thread (CPU time, so that other work on the machine matters little).

python benchmarks/quantization.py --table writes the table in benchmarks/README.md from that file.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from sr_transformers import ModelScorer, PreparedData, evaluate
from sr_transformers.data.vocabulary import UNK_ID
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.marks import put
from sr_transformers.serving.onnx import WEIGHTS, export_onnx

BATCH, K, SINGLE = 32, 10, 500
RESULTS = Path(__file__).parent / "results" / "quantization.json"
PAGE = Path(__file__).parent / "README.md"


def rank(session: onnxruntime.InferenceSession, data: PreparedData, exclude_seen: bool) -> tuple[float, float, float]:
    """HR@10, NDCG@10 and CPU milliseconds per history over all test targets; an unknown target counts as missed."""
    targets = data.targets("test")
    targets = targets[np.argsort(targets[:, 1], kind="stable")]  # like lengths side by side: less padding
    gains, hits, seconds = 0.0, 0, 0.0
    for start in range(0, len(targets), BATCH):
        rows = targets[start : start + BATCH].tolist()
        answers = np.array([data.items(history, position + 1, position)[0] for history, position in rows])
        inputs = feed([data.items(history, position) for history, position in rows], exclude_seen)
        begin = time.process_time()
        (items,) = session.run(["items"], inputs)
        seconds += time.process_time() - begin
        found, place = np.nonzero((items == answers[:, None]) & (answers != UNK_ID)[:, None])
        hits += len(found)
        gains += float((1 / np.log2(place + 2)).sum())
    return hits / len(targets), gains / len(targets), 1000 * seconds / len(targets)


def feed(histories: list[np.ndarray], exclude_seen: bool) -> dict[str, np.ndarray]:
    """The graph's inputs: tokens padded on the left, unknown items left out."""
    known = [history[history != UNK_ID] for history in histories]
    width = max(1, *(len(history) for history in known))
    tokens = np.zeros((len(known), width), np.int64)
    for row, history in enumerate(known):
        tokens[row, width - len(history) :] = history
    return {"input_ids": tokens, "exclude_seen": np.full(len(known), exclude_seen)}


def table() -> str:
    """Markdown: a row per kind of weights."""
    lines = [
        "| weights | HR@10 | NDCG@10 | MB | CPU ms per history, batches of 32 | CPU ms, alone |",
        "|---|---|---|---|---|---|",
    ]
    for row in json.loads(RESULTS.read_text())["rows"]:
        times = [
            f"{row[key]:.1f}" if key in row else "" for key in ("ms_per_history_in_batches", "ms_per_history_alone")
        ]
        quality = f"{row['hr@10']:.4f} | {row['ndcg@10']:.4f}"
        lines.append(f"| {row['weights']} | {quality} | {row['bytes'] / 1e6:.2f} | {' | '.join(times)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures and writes, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        put(PAGE, "quantization", table())
        return
    if not (options.model and options.data):
        parser.error("give --model and --data, or --table")
    torch.set_num_threads(1)
    data = PreparedData(options.data)
    exclude_seen = data.filters_seen()
    model = Checkpoint(options.model).model(dtype=torch.float32)
    report = evaluate(ModelScorer(model), data, ks=(K,))
    rows = [{"weights": "checkpoint, PyTorch", **{key: report["metrics"][key] for key in ("hr@10", "ndcg@10")},
             "bytes": sum(parameter.nbytes for parameter in model.parameters())}]  # fmt: skip
    print(rows[-1], flush=True)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    for weights in WEIGHTS:
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(options.model, Path(folder) / weights, K, weights)
            size = sum(file.stat().st_size for file in path.parent.glob("model.onnx*"))
            session = onnxruntime.InferenceSession(str(path), session_options)
            hit_rate, ndcg, batched = rank(session, data, exclude_seen)
            singles = [feed([data.items(*row)], exclude_seen) for row in data.targets("test", 0, SINGLE).tolist()]
            begin = time.process_time()
            for single in singles:
                session.run(["items"], single)
            alone = 1000 * (time.process_time() - begin) / len(singles)
        row = {"weights": weights, "hr@10": hit_rate, "ndcg@10": ndcg, "bytes": size}
        rows.append({**row, "ms_per_history_in_batches": round(batched, 3), "ms_per_history_alone": round(alone, 3)})
        print(rows[-1], flush=True)
    hardware = {"machine": platform.machine(), "threads": 1, "torch": torch.__version__}
    content = {
        "model": Path(options.model).name,
        "protocol": report["protocol"],
        "num_targets": report["num_targets"],
        "hardware": {**hardware, "onnxruntime": onnxruntime.__version__},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
