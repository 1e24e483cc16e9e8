import pytest

from sr_transformers.planning.gpus import _DEVICES, GPUS, gpu_of_device, parse_gpus


def test_number_and_name_are_read():
    assert parse_gpus("8xA100-80GB") == (8, GPUS["A100-80GB"])
    assert parse_gpus("t4") == (1, GPUS["T4"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("2xA100-80", r"nearest: A100-80GB"), ("0xL4", "at least one"), ("xyz", "known are A100-40GB")],
)
def test_what_is_not_known_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_gpus(text)


def test_throughput_is_dense():
    """Twice as much would be the figure with sparsity. Published: A100 312, H100 SXM 989, L4 121 TFLOP/s."""
    assert [round(GPUS[name].bf16 / 1e12) for name in ("A100-40GB", "H100", "L4")] == [312, 989, 121]
    assert GPUS["T4"].bf16 is None
    assert all(gpu.source for gpu in GPUS.values())


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA L40", None),
    ],
)
def test_drivers_names_are_known_and_other_hardware_is_not_taken_for_it(device, expected):
    found = gpu_of_device(device)
    assert (found and found.name) == expected
    assert set(_DEVICES) == set(GPUS)
