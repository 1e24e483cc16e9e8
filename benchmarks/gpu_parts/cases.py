"""What is measured, the most valuable first, and how long it may take. Plain values: nothing here loads torch."""

from typing import Any

ITEMS = {"26k": 26_427, "240k": 240_320}  # of the paper's two catalogues
ATTENTIONS = ("torch_varlen", "sdpa", "flash_attention_2", "flex_attention")
# The part of the time that has passed when a part has to be over; what one leaves the next ones have.
ENDS = {"exactness": 0.12, "training": 0.55, "packing": 0.68, "loss": 0.80, "ranking": 0.92, "vocabulary": 1.0}


def _training(size: str, items: str, compiled: bool = False, attention: str = "auto", seconds: int = 30) -> dict:
    return {"size": size, "items": items, "attention": attention, "compiled": compiled, "limit": seconds}


CASES: dict[str, list[dict[str, Any]]] = {
    "exactness": [
        {"attention": attention, "precision": precision, "head_size": head_size, "limit": 40}
        for attention in ATTENTIONS
        for precision, head_size in (("bf16", 50), ("bf16", 64), ("fp32", 50))
        if precision == "bf16" or attention in ("sdpa", "flex_attention")
    ],
    "training": [
        _training("800m", "26k"),
        _training("75m", "26k"),
        _training("800m", "26k", compiled=True, seconds=150),
        _training("9m", "26k"),
        _training("800m", "240k"),
        _training("75m", "26k", compiled=True, seconds=90),
        _training("800m", "26k", attention="sdpa"),
        _training("75m", "240k"),
        _training("9m", "240k"),
        _training("9m", "26k", compiled=True, seconds=60),
        _training("9m", "240k", compiled=True, seconds=60),
        _training("75m", "240k", compiled=True, seconds=90),
        _training("800m", "240k", compiled=True, seconds=150),
    ],
    "packing": [
        {"size": size, "items": "26k", "layout": layout, "limit": 30}
        for size in ("75m", "9m")
        for layout in ("padded", "flat", "rows", "grouped")
    ],
    "loss": [
        {"implementation": implementation, "width": width, "items": items, "targets": 8192, "limit": 30}
        for width, items in ((1200, 26_427), (512, 240_320), (256, 1_000_000))
        for implementation in ("ours", "torch", "liger", "cut-cross-entropy")
    ],
    "ranking": [
        {"what": what, "size": size, "items": items, "precision": "bf16", "limit": 30}
        for size, items in (("75m", "26k"), ("9m", "240k"), ("800m", "240k"))
        for what in ("full ranking", "one history", "batches of 256")
    ],
    "vocabulary": [{"size": size, "limit": 60} for size in ("9m", "800m")],
}

# The same parts at sizes that a CPU gets through in seconds: to try the command, not to measure.
TINY: dict[str, list[dict[str, Any]]] = {
    "exactness": [
        {"attention": attention, "precision": "bf16", "head_size": 10, "limit": 60} for attention in ATTENTIONS[:3]
    ],
    "training": [
        {**_training("tiny", "tiny"), "limit": 60},
        {**_training("tiny", "tiny", attention="torch_varlen"), "limit": 60},
    ],
    "packing": [
        {"size": "tiny", "items": "tiny", "layout": layout, "limit": 60} for layout in ("padded", "rows", "grouped")
    ],
    "loss": [
        {"implementation": implementation, "width": 16, "items": 300, "targets": 64, "limit": 60}
        for implementation in ("ours", "torch", "liger", "cut-cross-entropy")
    ],
    "ranking": [
        {"what": what, "size": "tiny", "items": "tiny", "precision": "fp32", "limit": 60}
        for what in ("full ranking", "one history", "batches of 256")
    ],
    "vocabulary": [{"size": "tiny", "limit": 60}],
}
