"""python benchmarks/sessions.py: what one more item costs in a `Session` that keeps keys and values, and without one.

A visitor with half a window of history chooses items until the window is full; after each the ten best items are asked
for, from the session and by `Recommender.recommend` of the whole history, in turns. Milliseconds per item, fresh
weights, 3,416 items; written to benchmarks/results/sessions.json.
"""

import time
from importlib.metadata import version

import harness
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender, Session
from sr_transformers.data.vocabulary import build_tokenizer

ITEMS = 3416
CASES = {
    "window 50, 2 layers, d 64": ("98k", 50),
    "window 512, 2 layers, d 64": ("98k", 512),
    "window 512, 12 layers, d 256": ("9m", 512),
}
MOST_ITEMS = 64  # new items a visit


def visit(recommender: Recommender, window: int, seed: int) -> dict[str, float]:
    """Median milliseconds per new item of both ways, and the largest difference of their probabilities."""
    items = np.random.default_rng(seed).integers(0, ITEMS, window).tolist()
    first = max(window // 2, window - MOST_ITEMS)
    session = Session(recommender, items[:first])
    session.recommend()
    times: dict[str, list[float]] = {"session": [], "anew": []}
    difference = 0.0
    for length in range(first + 1, window + 1):
        start = time.perf_counter()
        session.add(items[length - 1])
        kept = session.recommend()
        middle = time.perf_counter()
        anew = recommender.recommend(items[:length])
        times["session"].append(middle - start)
        times["anew"].append(time.perf_counter() - middle)
        pairs = zip(kept, anew, strict=True)
        difference = max(difference, *(abs(one.probability - other.probability) for one, other in pairs))
    return {f"{name}_ms": 1000 * float(np.median(values)) for name, values in times.items()} | {
        "largest_difference": difference
    }


def main() -> None:
    """Measures case by case; each goes into results/sessions.json when it is done."""
    options = harness.parser(__doc__, list(CASES), []).parse_args()
    torch.set_num_threads(options.threads)
    tokenizer: PreTrainedTokenizerBase = build_tokenizer([str(item) for item in range(ITEMS)])
    for name in options.case:
        size, window = CASES[name]
        torch.manual_seed(0)
        config = LSRMConfig.from_size(size, vocab_size=len(tokenizer), max_position_embeddings=window)
        recommender = Recommender(LSRMForCausalLM(config).eval(), tokenizer)
        visit(recommender, window, 0)
        turns = [visit(recommender, window, seed) for seed in range(1, options.rounds + 1)]
        found = {
            "ours": [
                {"versions": {"torch": version("torch"), "transformers": version("transformers")}, **turn}
                for turn in turns
            ]
        }
        ours, anew = harness.median(turns, "session_ms"), harness.median(turns, "anew_ms")
        row = harness.row(name, "one more item in a session, p50", "ms", ours, {"encoding anew": anew}, False)
        harness.save("sessions", name, [row], found, options)


if __name__ == "__main__":
    main()
