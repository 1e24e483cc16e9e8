"""A plan as text for people."""

from typing import Any


def show(plan: dict[str, Any]) -> str:
    """The tables of `sr-transformers plan`."""
    model, work, flops = plan["model"], plan["work"], plan["flops_per_target"]
    parameters = sum(model["parameters"].values())
    lines = [
        f"N {model['num_non_embedding_parameters']:,}; {parameters:,} parameters with tables, biases and norms; "
        f"{model['vocab_size']:,} tokens",
        f"{work['rows']} rows of {work['width']} a device and micro-batch, {work['precision']}, {work['optimizer']}, "
        f"{work['attention']} attention, {'with' if work['checkpointing'] else 'without'} checkpointing",
        "",
        "Memory of one device that holds everything, at the moment of the step that needs most",
    ]
    lines += _memory(plan["memory"])
    lines += [
        "",
        f"FLOPs per target: {_si(flops['useful'])} (blocks {_si(flops['blocks'])}, head {_si(flops['head'])}, "
        f"attention {_si(flops['attention'])})"
        + (f", and {_si(flops['again'])} computed again by checkpointing" if flops["again"] else ""),
    ]
    if "flops" in plan:
        lines.append(f"FLOPs per epoch: {_si(plan['flops_per_epoch'])}; all: {_si(plan['flops'])}")
    if "device" in plan:
        lines += _device(plan)
    return "\n".join(lines)


def _memory(memory: dict[str, Any]) -> list[str]:
    peaks = {name: one["moments"][one["moment"]] for name, one in memory.items()}
    parts = list(dict.fromkeys(part for moment in peaks.values() for part in moment))
    lines = [f"  {'part':20}" + "".join(f"{name:>24}" for name in memory)]
    for part in parts:
        if any(moment.get(part) for moment in peaks.values()):
            lines.append(f"  {part:20}" + "".join(f"{_bytes(moment.get(part, 0)):>24}" for moment in peaks.values()))
    lines.append(f"  {'peak':20}" + "".join(f"{_bytes(one['peak_bytes']):>24}" for one in memory.values()))
    lines.append(f"  {'at':20}" + "".join(f"{one['moment']:>24}" for one in memory.values()))
    return lines


def _device(plan: dict[str, Any]) -> list[str]:
    device, time = plan["device"], plan["time"]
    lines = ["", f"{device['number']} x {device['name']}, {device['memory'] / 1e9:.0f} GB each ({device['source']})"]
    lines.append(f"  {'strategy':10}{'checkpointing':>16}{'a device':>14}  fits")
    for row in plan["strategies"]:
        answer = "yes" if row["fits"] else "no"
        again = "yes" if row["checkpointing"] else "no"
        lines.append(f"  {row['strategy']:10}{again:>16}{_bytes(row['bytes_per_device']):>14}  {answer}")
    rate = device["bf16"] if plan["work"]["precision"] == "bf16" else device["fp32"]
    lines.append(
        f"At {device['utilisation']:.0%} of {rate / 1e12:,.0f} TFLOP/s: {time['targets_per_second']:,.0f} targets/s, "
        f"{time['seconds_per_step'] * 1e3:,.0f} ms a micro-batch"
    )
    if "seconds" in time:
        lines.append(f"  an epoch: {_hours(time['seconds_per_epoch'])}; all: {_hours(time['seconds'])}")
    return lines


def _bytes(number: float) -> str:
    return f"{number / 1e9:,.2f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB"


def _si(number: float) -> str:
    for power, letter in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:,.3g} {letter}FLOP"
    return f"{number:,.0f} FLOP"


def _hours(seconds: float) -> str:
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:,.1f} days"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"
