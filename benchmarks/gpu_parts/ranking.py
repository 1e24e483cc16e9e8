"""Full ranking of users (histories to ranks, `ModelScorer` and `rank_targets`), and serving through `Recommender`: raw
item ids in, the ten best out, seen items removed. Histories of 50 items."""

import statistics
from typing import Any

import numpy as np
import torch

from gpu_parts.common import DEVICE, WINDOW, allocated_peak, config_of, make_model, seconds_of
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.evaluation.ranking import pairs_of, rank_targets, rows_of_scores
from sr_transformers.lsrm.configuration_lsrm import NUM_SPECIAL
from sr_transformers.serving.recommender import Recommender

CALLS, BATCH, MOST_USERS = (300, 256, 2048) if DEVICE.type == "cuda" else (20, 8, 8)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One way of asking, one size, one catalogue."""
    config = config_of(case["size"], case["items"])
    model, random = make_model(config).eval(), np.random.default_rng(0)
    bf16 = case["precision"] == "bf16"
    if case["what"] == "full ranking":
        users = min(rows_of_scores(config.vocab_size), MOST_USERS)
        scorer = ModelScorer(model, reuse_memory=True, bf16=bf16)
        histories = list(random.integers(NUM_SPECIAL, config.vocab_size, (users, WINDOW)))
        targets = torch.from_numpy(random.integers(NUM_SPECIAL, config.vocab_size, users)).to(DEVICE)

        def rank() -> None:
            scores = scorer.score(histories)
            rank_targets(scores, targets, pairs_of(histories, DEVICE), 10)

        second = statistics.median(seconds_of(rank))
        return {"users": users, "users_per_second": users / second, "peak_bytes": allocated_peak()}
    recommender = Recommender(model, build_tokenizer(range(config.vocab_size - NUM_SPECIAL)), bf16=bf16)
    users = 1 if case["what"] == "one history" else BATCH
    asked = iter(
        [random.integers(0, config.vocab_size - NUM_SPECIAL, (users, WINDOW)).tolist() for _ in range(16)] * 400
    )
    if users == 1:
        times = seconds_of(lambda: recommender.recommend(next(asked)[0], k=10), 20, CALLS, 0.0)
    else:
        times = seconds_of(lambda: recommender.recommend_batch(next(asked), k=10), 3, max(CALLS // 20, 2), 0.0)
    return {
        "users": users,
        "calls": len(times),
        "p50_ms": 1000 * float(np.quantile(times, 0.5)),
        "p99_ms": 1000 * float(np.quantile(times, 0.99)),
        "users_per_second": users / statistics.median(times),
        "peak_bytes": allocated_peak(),
    }
