"""What the parts share: the device, models, packed batches, steps of training, and a clock that waits for the GPU."""

import gc
import importlib.util
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from gpu_parts.cases import ITEMS
from sr_transformers.data.packing import pack_rows
from sr_transformers.lsrm.configuration_lsrm import NUM_SPECIAL, LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.planning.gpus import GPU, gpu_of_device
from sr_transformers.planning.memory import Work, peak, training_memory
from sr_transformers.records import source_commit
from sr_transformers.training.attention import fault_of_kernel

WINDOW = 50
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PACKAGES = ("torch", "transformers", "flash_attn", "liger_kernel", "cut_cross_entropy", "triton")
SECONDS = 3.0 if DEVICE.type == "cuda" else 0.1  # of timed steps


def gpu() -> GPU | None:
    """This GPU as the table of data sheets has it."""
    return gpu_of_device(torch.cuda.get_device_name()) if DEVICE.type == "cuda" else None


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name.replace("_", "-"))
        except PackageNotFoundError:
            versions[name] = None
    known = gpu()
    found: dict[str, Any] = {"device": platform.machine(), "memory_bytes": None, "python": platform.python_version()}
    if DEVICE.type == "cuda":
        found["device"] = torch.cuda.get_device_name()
        found["memory_bytes"] = torch.cuda.get_device_properties(0).total_memory
        found["cuda"] = torch.version.cuda
    peaks = None if known is None else {"name": known.name, "bf16_flops": known.bf16, "source": known.source}
    return {**found, "data_sheet": peaks, "versions": versions, "commit": source_commit()}


def require(package: str) -> None:
    """Raises:
    RuntimeError: if a package is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise RuntimeError(f"{package} is not installed")


def config_of(size: str, items: str | int, **more: Any) -> LSRMConfig:
    """One of the paper's sizes, or one for a look at the command itself."""
    if size == "tiny":
        shape = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
        return LSRMConfig(**{**shape, "vocab_size": (300 if items == "tiny" else int(items)) + NUM_SPECIAL, **more})
    number = ITEMS[items] if isinstance(items, str) else items
    return LSRMConfig.from_size(size, vocab_size=number + NUM_SPECIAL, max_position_embeddings=WINDOW, **more)


def make_model(config: LSRMConfig, attention: str = "sdpa", seed: int = 0) -> LSRMForCausalLM:
    """A fresh model, made where it is used: on a CPU the largest would take a minute."""
    torch.manual_seed(seed)
    with DEVICE:
        return LSRMForCausalLM._from_config(config, attn_implementation=attention)


def best_attention(config: LSRMConfig) -> str:
    """What a run would train with here in bf16."""
    if is_flash_attn_2_available():
        return "flash_attention_2"
    head_size = config.hidden_size // config.num_attention_heads
    return "sdpa" if fault_of_kernel(head_size, torch.bfloat16, DEVICE) else "torch_varlen"


def is_flat(attention: str) -> bool:
    """Whether an attention of variable length wants one flat row."""
    return attention != "sdpa"


def lay_out(lengths: list[int], layout: str, vocab_size: int, seed: int = 0) -> dict[str, Any]:
    """A batch with windows of these lengths, items and targets drawn at random.

    Args:
        layout: "flat": one row, with `cu_seq_lens_*`; "rows": rows of `WINDOW` places that hold several users each;
            "padded": a user a row, filled up on the right to `WINDOW` places; "grouped": to the longest of them. The
            latter two need no mask: no item sees what comes after it, and what fills up has no target.
    """
    random = torch.Generator().manual_seed(seed)
    if layout == "flat":
        rows = [lengths]
    elif layout == "rows":
        row = pack_rows(torch.tensor(lengths).numpy(), WINDOW)
        rows = [[] for _ in range(row.max() + 1)]
        for length, place in zip(lengths, row.tolist(), strict=True):
            rows[place].append(length)
    else:
        rows = [[length] for length in lengths]
    width = {"flat": sum(lengths), "grouped": max(lengths)}.get(layout, WINDOW)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    positions, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        place = 0
        for length in row:
            stop = place + length
            ids[index, place:stop] = torch.randint(NUM_SPECIAL, vocab_size, (length,), generator=random)
            labels[index, place:stop] = torch.randint(NUM_SPECIAL, vocab_size, (length,), generator=random)
            positions[index, place:stop] = torch.arange(length)
            place = stop
    batch: dict[str, Any] = {"input_ids": ids, "shift_labels": labels}
    if layout in ("flat", "rows"):
        batch["position_ids"] = positions
    if layout == "flat":
        bounds = torch.tensor([0, *lengths]).cumsum(0).int()
        longest = max(lengths)
        batch |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
    return {name: one.to(DEVICE) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}


def wait() -> None:
    """Until the device has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def clean() -> None:
    """Gives back what the case before has left, and begins to count memory anew."""
    if "torch._dynamo" in sys.modules:  # what was compiled can keep weights alive
        torch.compiler.reset()
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def allocated_peak() -> int | None:
    """Most bytes of tensors at one time since `clean`; None on a CPU."""
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else None


def seconds_of(call: Callable[[], Any], warm_up: int = 3, least: int = 3, seconds: float = SECONDS) -> list[float]:
    """Seconds of each call, the device's work included, after some that do not count."""
    for _ in range(warm_up):
        call()
    wait()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return times


class Training:
    """Steps as the library takes them: bf16 autocast over float32 weights, clipped gradients, fused AdamW."""

    def __init__(self, config: LSRMConfig, attention: str, compiled: bool = False):
        self.model = make_model(config, attention).train()
        self.called: Any = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=1e-8, fused=True)

    def step(self, batch: dict[str, Any]) -> None:
        """One optimizer step."""
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = self.called(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def planned_bytes(config: LSRMConfig, rows: int, attention: str) -> int:
    """What `sr-transformers plan` says of a step's memory at its peak."""
    kind = "flash" if is_flat(attention) and DEVICE.type == "cuda" else "sdpa"
    work = Work(rows, WINDOW, "bf16", "adam", kind, DEVICE.type)
    return peak(training_memory(config, work))[1]
