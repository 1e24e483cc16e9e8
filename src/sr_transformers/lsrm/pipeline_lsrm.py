# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""`pipeline("next-item", model=...)`: raw item ids in, the most likely next items out.

Where this package is installed the task is known; elsewhere this file travels to the Hub beside the weights and
`trust_remote_code=True` finds it there. So it imports torch and transformers only. It refuses a history of which the
vocabulary knows no item: there is nothing to predict from.
"""

from collections.abc import Mapping, Sequence

import torch
from transformers import Pipeline

from .identity_lsrm import check_same_items, tokenizer_fingerprint
from .own_items_lsrm import pasts_of_rows
from .requests_lsrm import check_ids, check_order, check_request, check_times, moment_of_request
from .scoring_lsrm import (
    check_tokenizer,
    excludes_seen,
    input_device,
    item_range,
    only_items,
    refuse_diverged,
    top_k_items,
)

NEXT_ITEM = "next-item"
_KEYS = ("history", "exclude", "times", "query_time")  # of a history that is a dict
BATCH_SIZE = 32  # histories at a time unless the caller says otherwise


def best_items(
    scores: torch.Tensor,
    excluded: Sequence[Sequence[int]],
    top_k: int,
    allowed: torch.Tensor | None = None,
) -> list[list[tuple[int, float]]]:
    """The items with the highest scores and their probabilities over all items of the vocabulary.

    Args:
        scores: `(B, V)` float logits of the next item, -inf for tokens that are no items; changed in place.
        excluded: per row, tokens that must not be named; their probability is not shared out to others.
        top_k: how many; a row gets fewer if fewer are left.
        allowed: `(V,)` bool, tokens that may be named; None allows all.

    Returns:
        Per row (token, probability), best first.

    Raises:
        ValueError: if scores are NaN or infinite.
    """
    refuse_diverged(scores.amax(1))
    probabilities = scores.softmax(1)
    for row, tokens in enumerate(excluded):
        scores[row, torch.tensor(tokens, dtype=torch.long, device=scores.device)] = -torch.inf
    if allowed is not None:
        scores[:, ~allowed.to(scores.device)] = -torch.inf
    best, found = top_k_items(scores, min(top_k, scores.shape[1]))
    chosen = probabilities.gather(1, found).tolist()
    return [
        [(token, p) for score, token, p in zip(*row, strict=True) if score > -torch.inf]
        for row in zip(best.tolist(), found.tolist(), chosen, strict=True)
    ]


class NextItemPipeline(Pipeline):
    """Recommends the next item.

    Call it with one history (raw ids, oldest first), a list of histories, or a generator or data set of them. Instead
    of a list of ids a history may be a dict with the key "history" and, for this history only, "exclude", for a model
    that reads moments "times", and for one that is told when it is asked "query_time" (now if it is left out).

    Call options, also taken by `pipeline(...)` as defaults:
        top_k: how many items, 10 by default; fewer come back if fewer are allowed.
        exclude_seen: never name an item of the history itself; by default as the model was validated and tested
            (`filter_seen` of its configuration), True for one that was not.
        exclude: raw ids that must not be named.
        candidates: name only these raw ids.
        batch_size: histories at a time.

    Returns:
        Per history a list of `{"item_id": raw id as the log had it, "score": probability over all items}`, best first.

    Raises:
        ValueError: for a history or candidates of which the vocabulary knows none, an id that is neither text nor an
            integer, a dict without history or with other keys, `top_k` that is no number from 1 on, moments that are
            no integers in order, a model that gives NaN, a tokenizer that pads on the right (the last position must be
            the last item), or one of other items than the model's, or of another number of them.
        TypeError: for a history that is a single id or a set instead of a list of ids.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, model, *args, **kwargs):
        placed = getattr(model, "hf_device_map", None)
        if model.device.type == "meta":  # transformers would send inputs to where the weights lie, a disk for example
            model.hf_device_map = {"": input_device(model)}
        try:
            super().__init__(model, *args, **kwargs)
        finally:
            if placed is not None:
                model.hf_device_map = placed
            elif model.device.type == "meta":
                del model.hf_device_map
        check_tokenizer(len(self.tokenizer), model.config)
        self.model.eval()  # transformers does so only for a model that it loads itself
        if self.tokenizer.padding_side != "left":
            raise ValueError(f"the tokenizer pads on the {self.tokenizer.padding_side}; set padding_side='left'.")
        check_same_items(self.model.config, tokenizer_fingerprint(self.tokenizer), "the vocabulary")

    def __call__(self, inputs, **kwargs):
        kwargs.setdefault("batch_size", self._batch_size or BATCH_SIZE)
        if isinstance(inputs, str | bytes | int):
            raise TypeError(f"a history is a list of item ids, got {inputs!r}; write [{inputs!r}].")
        if isinstance(inputs, list | tuple):
            if not any(_is_history(one) for one in inputs):
                return super().__call__({"history": list(inputs)}, **kwargs)
            return super().__call__([one if isinstance(one, dict) else {"history": one} for one in inputs], **kwargs)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, top_k=None, exclude_seen=None, exclude=None, candidates=None):
        check_request(1 if top_k is None else top_k, exclude_seen, "top_k")
        forward, post = {}, {}
        preprocess = {} if exclude_seen is None else {"exclude_seen": exclude_seen}
        if exclude is not None:
            preprocess["exclude"] = self._known(exclude)
        if top_k is not None:
            post["top_k"] = top_k
        if candidates is not None:
            post["allowed"] = self._known(candidates)
            if not post["allowed"]:
                raise ValueError("the vocabulary knows none of the candidates; pass raw ids as they were in the log.")
        return preprocess, forward, post

    def preprocess(self, inputs, exclude_seen=None, exclude=()):
        if exclude_seen is None:
            exclude_seen = excludes_seen(self.model.config)
        given = inputs if isinstance(inputs, Mapping) else {"history": inputs}
        if "history" not in given or set(given) - set(_KEYS):
            raise ValueError(
                f"a dict needs the key 'history' with the item ids and may have {', '.join(_KEYS[1:])}; this one "
                f"has {list(given)}."
            )
        history, more = given["history"], given.get("exclude", ())
        check_order(history)
        if not _is_history(history):
            raise TypeError(f"a history is a list of item ids, got {history!r}; write [{history!r}].")
        known = self._known(history)
        if not known:
            raise ValueError(f"the vocabulary knows no item of the history {list(history)[:5]!r}.")
        window = torch.tensor([known[-self.model.config.max_position_embeddings :]])
        past = {"past_ids": torch.tensor([known])} if getattr(self.model.config, "reads_past", False) else {}
        times: list[int] = []
        if getattr(self.model.config, "needs_times", False):
            times = self._checked(given.get("times"), history)
            known_times = [moment for item, moment in zip(history, times, strict=True) if self._known([item])]
            past["past_times"] = torch.tensor([known_times])
        asked = moment_of_request(given.get("query_time"), times, self.model.config)
        if asked is not None:
            past["query_times"] = torch.tensor([[asked]])
        return {
            **past,
            "input_ids": window,
            "attention_mask": torch.ones_like(window),
            "excluded": [*(known if exclude_seen else ()), *exclude, *self._known(more)],
        }

    def _forward(self, inputs):
        excluded = inputs.pop("excluded")
        mask = inputs["attention_mask"]
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        if "past_ids" in inputs:  # of the whole history, not only of what the window reads
            past, times, width = inputs.pop("past_ids"), inputs.pop("past_times", None), mask.shape[1]
            real = past != self.tokenizer.pad_token_id
            asked = inputs.pop("query_times", None)
            when = times, None if asked is None else asked[:, 0]
            pasts = pasts_of_rows(past, real, width, width, *when)
            inputs |= pasts.inputs(self.model.config, mask.shape, self.model.half_lives)
        logits = self.model(**inputs, position_ids=positions, use_cache=False, logits_to_keep=1).logits[:, -1]
        items = item_range(self.model.config)
        return {"logits": only_items(logits.float(), items, -torch.inf)[:, : items[1]], "excluded": excluded}

    def postprocess(self, outputs, top_k=10, allowed=None):
        scores = outputs["logits"]
        mask = None
        if allowed is not None:
            mask = torch.zeros(scores.shape[1], dtype=torch.bool)
            mask[allowed] = True
        found = best_items(scores, [outputs["excluded"]], top_k, mask)[0]
        integers = self.tokenizer.init_kwargs.get("item_id_type") == "integer"
        ids = self.tokenizer.convert_ids_to_tokens([token for token, _ in found])
        return [
            {"item_id": int(item) if integers else item, "score": probability}
            for item, (_, probability) in zip(ids, found, strict=True)
        ]

    def _checked(self, times, history):
        if times is None:
            raise ValueError(
                "this model reads when interactions happened: write a history as {'history': ids, 'times': moments}, "
                "one moment for each id, none earlier than the one before."
            )
        return check_times(times, history, "the times of a history")

    def _known(self, items):
        """Tokens of the raw ids that the vocabulary has."""
        check_ids(items)
        special = set(self.tokenizer.all_special_ids)
        tokens = self.tokenizer.convert_tokens_to_ids([str(item) for item in items])
        return [token for token in tokens if token not in special]


def _is_history(value):
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


__all__ = ["NEXT_ITEM", "NextItemPipeline", "best_items"]
