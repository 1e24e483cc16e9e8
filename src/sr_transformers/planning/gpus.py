"""Accelerators as their makers publish them: memory and dense matrix throughput (never the figure "with sparsity").

Sources, all NVIDIA's own documents: data sheets of A100 (2021), H100 and H200 (2023, 2024), L4 and L40S (2023), A10
(2021), T4 (2019), V100 (2020) and DGX B200 (2024); Ada architecture white paper for the RTX 4090. Where a data sheet
prints tensor throughput with sparsity only, half of it stands here.
"""

import difflib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    """One kind of accelerator.

    Attributes:
        name: how it is called in plans.
        memory: bytes, as published (10^9 a GB).
        bf16: dense FLOP/s in bf16 with float32 sums; None where the hardware has no bf16.
        fp32: FLOP/s in float32 without tensor cores, which is what torch uses for float32 by default.
        source: the document.
    """

    name: str
    memory: float
    bf16: float | None
    fp32: float
    source: str


def _gpu(name: str, gigabytes: float, bf16: float | None, fp32: float, source: str) -> GPU:
    return GPU(name, gigabytes * 1e9, None if bf16 is None else bf16 * 1e12, fp32 * 1e12, source)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("A100-40GB", 40, 312, 19.5, "A100 data sheet"),
        _gpu("A100-80GB", 80, 312, 19.5, "A100 data sheet"),
        _gpu("H100", 80, 989.4, 67, "H100 data sheet, SXM (1,979 with sparsity)"),
        _gpu("H100-PCIe", 80, 756.5, 51, "H100 data sheet, PCIe (1,513 with sparsity)"),
        _gpu("H200", 141, 989.4, 67, "H200 data sheet, SXM (1,979 with sparsity)"),
        _gpu("B200", 180, 2250, 75, "DGX B200 data sheet, a GPU of eight (36 PFLOPS bf16 with sparsity)"),
        _gpu("L4", 24, 121, 30.3, "L4 data sheet (242 with sparsity)"),
        _gpu("L40S", 48, 362.05, 91.6, "L40S data sheet"),
        _gpu("A10", 24, 125, 31.2, "A10 data sheet"),
        _gpu("RTX-4090", 24, 165.2, 82.6, "Ada white paper, table of the RTX 4090"),
        _gpu("T4", 16, None, 8.1, "T4 data sheet"),
        _gpu("V100-16GB", 16, None, 15.7, "V100 data sheet, SXM2"),
        _gpu("V100-32GB", 32, None, 15.7, "V100 data sheet, SXM2"),
    )
}

# What drivers call them. The variants NVL, A10G and parts of a GPU (MIG) are other hardware, and not in the table.
_DEVICES = {
    "A100-40GB": r"A100.*40GB.*",
    "A100-80GB": r"A100.*80GB.*",
    "H100": r"H100 80GB HBM3",
    "H100-PCIe": r"H100 PCIe",
    "V100-16GB": r"V100-SXM2-16GB",
    "V100-32GB": r"V100-SXM2-32GB",
    "RTX-4090": r"RTX 4090",
    **{name: name for name in ("H200", "B200", "L4", "L40S", "A10", "T4")},
}


def gpu_of_device(name: str) -> GPU | None:
    """The accelerator that a driver calls so (`torch.cuda.get_device_name()`); None if the table lacks it.

    >>> gpu_of_device("NVIDIA H100 80GB HBM3").name
    'H100'
    """
    name = re.sub(r"^(NVIDIA |Tesla |GeForce )*", "", name)
    found = [known for known, pattern in _DEVICES.items() if re.fullmatch(pattern, name) and "MIG" not in name]
    return GPUS[found[0]] if found else None


def parse_gpus(text: str) -> tuple[int, GPU]:
    """How many of which: `"8xA100-80GB"` or `"T4"`.

    Raises:
        ValueError: for a name that is not in the table, or a number below 1.

    >>> parse_gpus("8xA100-80GB")[0]
    8
    """
    match = re.fullmatch(r"(?:(\d+)x)?(.+)", text)
    number, name = (match[1], match[2]) if match else (None, text)
    known = {one.lower(): gpu for one, gpu in GPUS.items()}
    if name.lower() not in known:
        close = difflib.get_close_matches(name, GPUS, n=1)
        hint = f" (nearest: {close[0]})" if close else ""
        raise ValueError(f"--gpus {text}: unknown accelerator {name!r}{hint}; known are {', '.join(GPUS)}.")
    if number is not None and int(number) < 1:
        raise ValueError(f"--gpus {text}: give at least one.")
    return int(number or 1), known[name.lower()]
