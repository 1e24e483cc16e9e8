"""python benchmarks/training.py: real next-item targets per second of training steps, full softmax, ours and theirs.

Two layers, two heads, window 50, Adam, dropout 0.2; 128 sequences a step, or as many targets. Ours through
`LSRMTrainer` on a prepared folder, in float32, in bf16, and in bf16 with `torch_compile`; the peers through their own
trainers, in the same ways as far as they have them. Our float32 stands beside the best peer in float32, our other ways
beside the best peer in any way; a row names that way. `RecTools fast` is the network of `rectools.fast_transformers` in
a plain loop of torch, as that package has no training loop for ids. Steps are timed from end to end, data loading
included, after warm-up; padding does not count, and neither does a first item that nothing precedes. `matrix products
alone` is what the products of such a step reach by themselves, in the same run. SASRec.pytorch trains with one negative
instead of the full softmax: it is measured and not compared. `12-layers` holds our training FLOPs against the machine's
measured matrix products instead.
"""

import statistics
from typing import Any

import harness
import logs

# name -> (log, width, layers, heads)
CASES = {
    "d 64, V 3.4k": ("dense", 64, 2, 2),
    "d 64, V 26k": ("26k", 64, 2, 2),
    "d 256, V 26k": ("26k", 256, 2, 2),
    "d 64, V 240k short": ("240k-short", 64, 2, 2),
    "12-layers": ("dense", 256, 12, 8),
    "tiny": ("tiny", 16, 2, 2),
}
IN_FP32 = ("RePlay", "HF GPT-2", "RecTools", "RecTools fast", "RecBole")
FASTER = (
    "RePlay bf16", "RePlay compiled", "HF GPT-2 bf16", "HF GPT-2 compiled", "RecTools bf16", "RecTools fast bf16",
    "RecTools fast compiled",
)  # fmt: skip
FULL_SOFTMAX = (*IN_FP32, *FASTER)
SEQUENCES = 128


def rows_of(case: str, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Throughput in each of our ways, memory, and the loss, against the best full-softmax peer."""
    speed = {name: harness.median(turns, "targets_per_second") for name, turns in found.items()}
    memory = {name: harness.median(turns, "peak_gib") for name, turns in found.items()}
    rows = []
    for name, way in harness.OURS.items():
        peers = {peer: speed.get(peer) for peer in (IN_FP32 if way == "fp32" else FULL_SOFTMAX)}
        rows.append(harness.row(case, f"training, {way}", "targets/s", speed[name], peers))
    best = rows[0]["peer"]
    rows.append(harness.row(case, "peak memory, fp32", "GiB", memory["ours"], {best: memory[best]}, False, 3))
    for name, way in harness.OURS.items():
        loss = loss_beside(found, name, best)
        if loss:
            rows.append(harness.row(case, f"loss after as many targets, {way}", "nats", *loss, False))
    return rows


def rows_of_products(
    case: str, found: dict[str, list[dict[str, Any]]], machine: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Our throughput beside that of the step's matrix products alone."""
    rows = []
    for name, way in harness.OURS.items():
        ours = harness.median(found[name], "targets_per_second")
        products = {"matrix products alone": harness.median(machine, f"targets_per_second_{way.split()[-1]}")}
        rows.append(harness.row(case, f"training, {way}, beside its matrix products", "targets/s", ours, products))
    return rows


def loss_beside(
    found: dict[str, list[dict[str, Any]]], name: str, peer: str
) -> tuple[float, dict[str, float | None]] | None:
    """Training loss of one of ours and of a peer after as many targets, the mean over the last fifth of them; None
    without curves that go so far."""
    curves = [found[one][0].get("losses") for one in (name, peer)]
    if not all(curves):
        return None
    last = min(curve[-1][0] for curve in curves)
    parts = [[loss for seen, loss in curve if 0.8 * last < seen <= last] for curve in curves]
    if not all(parts):
        return None
    ours, theirs = (statistics.mean(part) for part in parts)
    return ours, {peer: theirs}


def main() -> None:
    """Measures case by case; each goes into results/training.json when it is done."""
    parser = harness.parser(__doc__, list(CASES), [*FULL_SOFTMAX, "SASRec.pytorch"])
    parser.set_defaults(case=[case for case in CASES if case != "tiny"])
    parser.add_argument("--warmup", type=int, default=3, help="steps that do not count")
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help="per step")
    options = parser.parse_args()
    for case in options.case:
        log, width, layers, heads = CASES[case]
        path = logs.log_path(log, options.work)
        settings = {
            "task": "training",
            "log": str(path),
            "items": logs.SHAPES[log].items,
            "width": width,
            "layers": layers,
            "heads": heads,
            "window": logs.WINDOW,
            "sequences": options.sequences,
            "targets_per_step": logs.targets_per_step(path, options.sequences),
            "warmup": options.warmup,
            "seconds": options.seconds,
        }
        shown = case if options.sequences == SEQUENCES else f"{case}, {options.sequences} sequences"
        print(shown, flush=True)
        if case == "12-layers":
            found = harness.rounds(list(harness.OURS), settings, options)
            machine = harness.rounds(("ours",), {**settings, "task": "gemm"}, options)["ours"]
            rows = []
            for name, way in harness.OURS.items():
                flops = harness.median(found[name], "targets_per_second") * found[name][0]["flops_per_target"] / 1e9
                peak = {"matrix products": harness.median(machine, f"gflops_{way.split()[-1]}")}
                rows.append(harness.row("12 layers, d 256", f"training, {way}", "GFLOP/s", flops, peak))
            harness.save("training", case, rows, {**found, "matrix products": machine}, options)
            continue
        found = harness.rounds([*harness.OURS, *options.peers], settings, options)
        machine = harness.rounds(("ours",), {**settings, "task": "products"}, options)["ours"]
        rows = [*rows_of(shown, found), *rows_of_products(shown, found, machine)]
        harness.save("training", shown, rows, {**found, "matrix products alone": machine}, options)


if __name__ == "__main__":
    main()
