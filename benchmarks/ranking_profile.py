"""python benchmarks/ranking_profile.py: where the time of full ranking goes, layers compiled in bfloat16.

One `evaluate` per case under torch's profiler, after one that compiles. Microseconds of a user by kind of work, the
rate of the product with the item table beside what the machine's products reach at their best, and what
is left of the time outside torch's operations; written to benchmarks/results/ranking_profile.json.
"""

import json
import sys
from typing import Any

import harness
import logs
import torch

sys.path.insert(0, str(harness.HERE / "peers"))
import worker_ours

from sr_transformers import ModelScorer, evaluate

CASES = {"V 3.4k": "dense", "V 26k": "26k", "V 240k": "240k"}
KINDS = {
    "product with the item table": ("aten::mm",),
    "the layers' products": ("aten::addmm", "aten::linear", "aten::mkldnn_linear_pointwise"),
    "attention": ("aten::baddbmm", "aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    "sums, maxima and comparisons of scores": (
        "aten::amax", "aten::add", "aten::exp2_", "aten::ge", "aten::sum", "aten::log2"
    ),
    "top k": ("aten::topk", "aten::gather"),
    "the layers' other work (compiled)": ("CompiledFxGraph",),
}  # fmt: skip


def profile(log: str, options: Any) -> dict[str, Any]:
    """Microseconds of a user by kind, and all of them."""
    settings = {
        "log": str(logs.log_path(log, options.work)), "width": 64, "layers": 2, "heads": 2, "window": logs.WINDOW
    }  # fmt: skip
    data = worker_ours.prepared(settings)
    scorer = ModelScorer(worker_ours.new_model(settings, data.vocab_size), reuse_memory=True, bf16=True, compile=True)
    evaluate(scorer, data, "test", ks=(10,), filter_seen=True)
    with torch.profiler.profile() as found:
        report = evaluate(scorer, data, "test", ks=(10,), filter_seen=True)
    users = report["num_targets"]
    spent = dict.fromkeys([*KINDS, "other operations"], 0.0)
    for event in found.key_averages():
        kind = next((name for name, words in KINDS.items() if any(matches(event.key, word) for word in words)), None)
        spent[kind or "other operations"] += event.self_cpu_time_total / users
    flops = 2.0 * data.vocab_size * settings["width"]
    whole = 1e6 * report["seconds"] / users
    return {
        "microseconds_per_user": whole,
        "by_kind": {**spent, "outside of operations": whole - sum(spent.values())},
        "item_table_gflops": flops / spent["product with the item table"] / 1e3,
    }


def matches(key: str, word: str) -> bool:
    """Whether an event is of a kind; compiled code has names that begin with more."""
    return key == word or (word == "CompiledFxGraph" and word in key)


def main() -> None:
    """Profiles, prints and writes."""
    options = harness.parser(__doc__, list(CASES), []).parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "hardware": harness.hardware(options.threads),
        "commit": harness.source_commit(),
        "command": harness.command(sys.argv),
        "peak_gflops_fp32": worker_ours.gemm({})["gflops_fp32"],
        "cases": {case: profile(CASES[case], options) for case in options.case},
    }
    print(json.dumps(result, indent=1))
    (options.results / "ranking_profile.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
