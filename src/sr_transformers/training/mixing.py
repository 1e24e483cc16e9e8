"""A model with `mix` in its history: what is counted for it before training, and its weights when training is over."""

from typing import Any

import numpy as np
import torch

from sr_transformers.data.past_inputs import Past, last_columns
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.evaluator import check_scorer
from sr_transformers.evaluation.log_counts import RecentCounts, popularity
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.evaluation.validation_choices import best_window, maximise_likelihood, validation_targets
from sr_transformers.lsrm.mix_lsrm import HALF_LIVES, expert_names


def mix_counts(data: PreparedData, timed: bool) -> tuple[dict[str, np.ndarray], int]:
    """What `LSRMMix.set_counts` takes: counts of the training data, and the window of recent popularity in stretches,
    chosen on validation targets.

    Args:
        timed: whether the model reads moments; without them there is no recent popularity.
    """
    counts = np.maximum(data.item_counts, 1).astype(np.int32)  # nothing in the vocabulary is impossible
    counts[:NUM_SPECIAL] = 0
    tables = {"popularity": counts}
    if not timed:
        return tables, 1
    recent = RecentCounts(data)
    starts, tokens, of_tokens = recent.pairs()
    rest = np.zeros(0 if len(tokens) else 1, np.int32)  # an empty table cannot be saved
    tables |= {
        "recent_ends": recent.ends(),
        "recent_starts": starts.astype(np.int64),
        "recent_tokens": np.concatenate([tokens, rest]).astype(np.int32),
        "recent_counts": np.concatenate([of_tokens, rest]).astype(np.int32),
    }
    return tables, best_window(recent, popularity(data), validation_targets(data))


@torch.no_grad()
def fit_mix(model: Any, data: PreparedData) -> dict[str, Any] | None:
    """Fits the weights of a trained model's mix to the validation targets, and lets it speak from now on.

    Returns:
        What was fitted, as `evaluation.mix.Mix.fitted`; None without targets: the model alone goes on speaking.

    Raises:
        ValueError: if the model's items are not the log's.
    """
    mix, timed = model.history.mix, model.config.needs_times
    model.config.mix_weights = None
    scorer = ModelScorer(model)
    check_scorer(scorer, data)
    found, spoken = [], []
    for part in validation_targets(data):
        pasts = [Past(items, times) for items, times in zip(part.histories, part.times, strict=True)]
        scores = scorer.score(part.histories, times=part.times if timed else None)
        targets = torch.from_numpy(part.targets).to(scores.device)
        of_model = scores.log_softmax(1).gather(1, targets[:, None]).double().exp()
        columns = last_columns(pasts, 1, scores.device, half_lives=HALF_LIVES)
        place = torch.zeros(1, dtype=torch.int64, device=scores.device)
        shares, speaks = mix.probabilities(columns, place, model.history.followers(columns, place), targets)
        found.append(torch.cat([of_model, shares], 1).cpu().numpy())
        spoken.append(torch.nn.functional.pad(speaks, (1, 0), value=True).cpu().numpy())
    if not found:
        return None
    of_targets = np.concatenate(found)
    weights, loss = maximise_likelihood(of_targets, np.concatenate(spoken))
    model.config.mix_weights = dict(zip(expert_names(timed), weights.tolist(), strict=True))
    return {
        "weights": model.config.mix_weights,
        "window": model.config.mix_window / max(model.config.mix_stretches, 1),
        "validation_targets": len(of_targets),
        "validation_loss": loss,
    }
