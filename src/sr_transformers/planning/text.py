"""A plan as text for people."""

from typing import Any

from sr_transformers.planning.strategies import (
    DDP,
    FSDP2,
    FSDP2_HOST,
    SINGLE,
    TABLE,
    ZERO_1,
    ZERO_2,
    ZERO_2_HOST,
    ZERO_3,
)
from sr_transformers.training.row_updates import DENSE

_MEANINGS = {
    SINGLE: "one device holds everything",
    DDP: "a copy of everything on each device",
    ZERO_1: "DeepSpeed: the optimizer's state is divided",
    ZERO_2: "DeepSpeed: gradients too",
    ZERO_3: "DeepSpeed: weights too",
    FSDP2: "torch: weights, gradients and state are divided; a layer, and the tables, are put together to compute",
    ZERO_2_HOST: "as zero-2, with the optimizer and its state in the host's memory",
    FSDP2_HOST: "as fsdp2, with all that is divided in the host's memory",
    TABLE: "vocabulary parallelism: so many processes have the rows of the item table together and read the same batch",
}


def show(plan: dict[str, Any]) -> str:
    """The tables of `sr-transformers plan`."""
    model, work, flops = plan["model"], plan["work"], plan["flops_per_target"]
    parameters = sum(model["parameters"].values())
    loss = f"sampled softmax of {work['num_negatives']:,} negatives" if work["num_negatives"] else "full softmax"
    updates = "" if work["table_updates"] == DENSE else f", table_updates {work['table_updates']}"
    lines = [
        f"N {model['num_non_embedding_parameters']:,}; {parameters:,} parameters with tables, biases and norms; "
        f"{model['vocab_size']:,} tokens of {model['hidden_size']:,} numbers",
        f"{work['rows']} rows of {work['width']} a device and micro-batch, {work['precision']}, {work['optimizer']}, "
        f"{work['attention']} attention, {'with' if work['checkpointing'] else 'without'} checkpointing, "
        f"{loss}{updates}",
        "",
        "Memory of one device that holds everything, at the moment of the step that needs most",
    ]
    lines += _memory(plan["memory"])
    if "successors" in plan:
        lines += _successors(plan["successors"])
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


def _successors(successors: dict[str, Any]) -> list[str]:
    text = (
        f"At most {successors['num_successors']} successors of every item: at most "
        f"{_bytes(successors['bytes_per_process'])} on each process, however the rest is divided"
    )
    if "bytes_while_counted" in successors:
        text += f"; while they are counted, at most {_bytes(successors['bytes_while_counted'])} of the host's memory"
    return ["", text + "."]


def _device(plan: dict[str, Any]) -> list[str]:
    device = plan["device"]
    rate = device["bf16"] if plan["work"]["precision"] == "bf16" else device["fp32"]
    sending = f", sending {device['bandwidth'] / 1e9:,.0f} GB/s" if device["bandwidth"] else ""
    lines = [
        "",
        f"{device['number']} x {device['name']}, {device['memory'] / 1e9:.0f} GB each ({device['source']}), at "
        f"{device['utilisation']:.0%} of {rate / 1e12:,.0f} TFLOP/s{sending}",
        f"  {'strategy':12}{'checkpointing':>14}{'a device':>14}{'its host':>12}{'sent a step':>14}{'a step':>12}"
        f"{'targets/s':>12}  fits",
    ]
    for row in plan["strategies"]:
        lines.append(
            f"  {row['strategy']:12}{'yes' if row['checkpointing'] else 'no':>14}{_bytes(row['bytes_per_device']):>14}"
            f"{_bytes(row['host_bytes_per_device']):>12}{_bytes(row['bytes_sent_per_device_and_step']):>14}"
            f"{_seconds(row['seconds_per_step']):>12}{row['targets_per_second']:>12,.0f}  "
            f"{'yes' if row['fits'] else 'no'}"
        )
    shown = list(dict.fromkeys(row["strategy"].partition("/")[0] for row in plan["strategies"]))
    lines += ["", *(f"  {name + ('/k' if name == TABLE else ''):12} {_MEANINGS[name]}" for name in shown), ""]
    if plan["best"] is not None:
        lines.append(f"Fastest that fits: {_how(plan['best'])}{_all_of_it(plan['time'])}.")
    elif plan.get("instead"):
        lines.append("None of these fits. What would, the smallest change first:")
        for one in plan["instead"]:
            lines.append(
                f"  - {', '.join(one['change'])}: {one['strategy']}, "
                f"{'with' if one['checkpointing'] else 'without'} checkpointing"
            )
            lines.append(
                f"    {_bytes(one['bytes_per_device'])} a device{_with_host(one)}, "
                f"{_bytes(one['bytes_sent_per_device_and_step'])} sent a step; {_seconds(one['seconds_per_step'])} a "
                f"step, {one['targets_per_second']:,.0f} targets/s{_all_of_it(one['time'])}"
                + ("" if one["hidden_size"] == plan["model"]["hidden_size"] else f"; {_narrower(one)}")
            )
    elif "instead" in plan:
        lines.append("None of these fits, and nothing that was tried would: choose a smaller size, or fewer items.")
    rows = plan["strategies"] + plan.get("instead", [])
    if any(row["strategy"].startswith(TABLE) and _by_rows(row, plan) for row in rows):
        lines.append(
            "A divided table (table/k) whose rows are updated alone (table_updates) is counted here, but not trained "
            "by this library yet."
        )
    return lines


def _by_rows(row: dict[str, Any], plan: dict[str, Any]) -> bool:
    return bool(row.get("table_updates", plan["work"]["table_updates"]) != DENSE)


def _narrower(one: dict[str, Any]) -> str:
    return f"another model, N {one['num_non_embedding_parameters']:,}"


def _how(row: dict[str, Any]) -> str:
    return (
        f"{row['strategy']} {'with' if row['checkpointing'] else 'without'} checkpointing{_with_host(row)}, "
        f"{row['targets_per_second']:,.0f} targets/s"
    )


def _with_host(row: dict[str, Any]) -> str:
    return f" and {_bytes(row['host_bytes_per_device'])} of its host" if row["host_bytes_per_device"] else ""


def _all_of_it(time: dict[str, float]) -> str:
    if "seconds" not in time:
        return ""
    return f"; an epoch: {_hours(time['seconds_per_epoch'])}; all: {_hours(time['seconds'])}"


def _bytes(number: float) -> str:
    if number >= 1e12:
        return f"{number / 1e12:,.2f} TB"
    return f"{number / 1e9:,.2f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB" if number else "0"


def _si(number: float) -> str:
    for power, letter in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:,.3g} {letter}FLOP"
    return f"{number:,.0f} FLOP"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds * 1e3:,.1f} ms"


def _hours(seconds: float) -> str:
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:,.1f} days"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"
