"""python benchmarks/packing.py: how to lay short histories out without a variable-length kernel.

Times training steps (forward, backward, fused AdamW) of an LSRM 98k on sdpa with the same windows in three layouts:
    filled    rows of the window's width, filled with windows of several users (what the library does)
    grouped   windows of like length side by side, a batch padded to its longest
    padded    one window a row, every row padded to the model's window
Unit: real targets per second. The layouts alternate within each round; medians over rounds are written to
benchmarks/results/packing.json.
"""

import time
from importlib.metadata import version

import harness
import numpy as np
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.data.packing import pack_rows

VOCABULARY, WINDOW, TARGETS_PER_STEP, STEPS = 3418, 50, 3200, 6
LAYOUTS = ("filled", "grouped", "padded")
SHAPES = {"short histories (mean 9)": 9, "medium histories (mean 25)": 25}


def window_sizes(mean: int, rng: np.random.Generator) -> np.ndarray:
    """Geometric lengths, cut at the window; enough for all steps."""
    return np.minimum(rng.geometric(1 / mean, size=STEPS * TARGETS_PER_STEP // 2), WINDOW)


def lay_out(groups: list[list[int]], width: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """A batch of rows of `width` places; each row holds windows of the given sizes."""
    shape = (len(groups), width)
    ids, positions, labels = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -100)
    for row, sizes in enumerate(groups):
        place = 0
        for size in sizes:
            ids[row, place : place + size] = rng.integers(2, VOCABULARY, size)
            labels[row, place : place + size] = rng.integers(2, VOCABULARY, size)
            positions[row, place : place + size] = np.arange(size)
            place += size
    batch = {"input_ids": ids, "position_ids": positions, "shift_labels": labels}
    return {key: torch.from_numpy(value) for key, value in batch.items()}


def batches(layout: str, sizes: np.ndarray, rng: np.random.Generator) -> list[dict[str, torch.Tensor]]:
    """`STEPS` batches of about `TARGETS_PER_STEP` targets."""
    sizes = np.sort(sizes) if layout == "grouped" else sizes
    cuts = np.searchsorted(np.cumsum(sizes), np.arange(1, sizes.sum() // TARGETS_PER_STEP) * TARGETS_PER_STEP)
    parts = np.split(sizes, cuts)
    parts = [parts[i] for i in rng.choice(len(parts), STEPS, replace=False)]
    result = []
    for part in parts:
        if layout == "filled":
            rows = pack_rows(part, WINDOW)
            groups = [part[rows == row].tolist() for row in range(rows.max() + 1)]
            result.append(lay_out(groups, WINDOW, rng))
        else:
            width = int(part.max()) if layout == "grouped" else WINDOW
            result.append(lay_out([[int(size)] for size in part], width, rng))
    return result


def main() -> None:
    """Measures and writes."""
    options = harness.parser(__doc__, list(SHAPES), []).parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = LSRMForCausalLM(LSRMConfig.from_size("98k", vocab_size=VOCABULARY)).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def run(work: list[dict[str, torch.Tensor]]) -> float:
        targets = sum(int((batch["shift_labels"] != -100).sum()) for batch in work)
        start = time.perf_counter()
        for batch in work:
            model(**batch, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return targets / (time.perf_counter() - start)

    for name in options.case:
        rng = np.random.default_rng(0)
        sizes = window_sizes(SHAPES[name], rng)
        work = {layout: batches(layout, sizes, rng) for layout in LAYOUTS}
        for layout in work:
            run(work[layout][:2])
        found: dict[str, list[dict]] = {layout: [] for layout in work}
        for _ in range(options.rounds):
            for layout in work:
                found[layout].append({"targets_per_second": run(work[layout])})
        found = {"ours": found.pop("filled"), **found}
        found["ours"][0]["versions"] = {"torch": version("torch"), "transformers": version("transformers")}
        speed = {layout: harness.median(turns, "targets_per_second") for layout, turns in found.items()}
        rows = [
            harness.row(name, f"filled rows against {layout} ones", "targets/s", speed["ours"], {layout: speed[layout]})
            for layout in LAYOUTS[1:]
        ]
        harness.save("packing", name, rows, found, options)


if __name__ == "__main__":
    main()
