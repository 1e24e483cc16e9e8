import pytest

from sr_transformers.planning.gpus import GPUS, parse_gpus


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
