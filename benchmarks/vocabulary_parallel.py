"""python benchmarks/vocabulary_parallel.py: what does an item table cost that is divided over processes?

For every number of items V and of processes n, a world of n processes is started (gloo on this machine, one thread
each); one process has a whole table and no other to talk to. Each builds the model, trains it for some steps (forward,
backward, clipping, fused AdamW) and tells

    memory   peak resident bytes above what the process held before; malloc gives back at once what is freed
    bytes    of the tensors that it puts into collectives in forward and backward, counted, beside the formula
    time     of a step, the median

The slope of memory over V should be 1/n of that of one process.

    python benchmarks/vocabulary_parallel.py --items 10000000 --width 32

trains a table that one process has no room for: two processes are measured, then every process gets a limit (on top of
what it holds before) of `--room` times what they took. One process must fail with it, and two must train.

Written to benchmarks/results/vocabulary_parallel.json. Linux only: it reads /proc.
"""

import argparse
import json
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from harness import RESULTS, command
from memory import LIVE, PeakMemory
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.records import source_commit, write_whole
from sr_transformers.training.vocabulary_parallel import by_mesh, clip_gradients, new_divided

MARK = "RESULT "
COLLECTIVES = ("c10d", "_c10d_functional")
WAITS = ("wait_tensor", "barrier")


class Payload(TorchDispatchMode):
    """Counts the bytes of the tensors that this process puts into collectives."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        if name.split("::")[0] in COLLECTIVES and not any(wait in name for wait in WAITS):
            self.bytes += sum(one.numel() * one.element_size() for one in tensors(args))
        return func(*args, **(kwargs or {}))


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in nested lists."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [one for part in value for one in tensors(part)] if isinstance(value, list | tuple) else []


def expected_bytes(rows: int, window: int, width: int) -> int:
    """Of a step in float32: for each target a maximum, a sum, its score and the gradient of a state of `width` numbers;
    for each place the vector looked up; and, in float64, what the processes compare to see that they do the same.

    >>> expected_bytes(rows=1, window=2, width=4)
    172
    """
    targets, places = rows * (window - 1), rows * window
    return 4 * (targets * (3 + width) + places * width) + 8 * 2 * (3 + width)


def slope(points: list[tuple[int, float]]) -> float:
    """Of the straight line through points, by least squares.

    >>> slope([(1, 3.0), (2, 5.0), (3, 7.0)])
    2.0
    """
    x = statistics.mean(point[0] for point in points)
    y = statistics.mean(point[1] for point in points)
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def train(config: LSRMConfig, mesh: Any, rows: int, steps: int) -> tuple[list[float], int]:
    """Seconds of every step, and the bytes of the last one's collectives; mesh None: a whole model."""
    model = LSRMForCausalLM(config) if mesh is None else new_divided(config, mesh)
    model.train()
    optimizers = [torch.optim.AdamW(group, fused=True) for group in by_mesh(model.parameters())]
    times: list[float] = []
    payload = Payload()
    for step in range(steps):
        torch.manual_seed(step)
        ids = torch.randint(2, config.vocab_size, (rows, config.max_position_embeddings))
        start = time.perf_counter()
        with payload:
            payload.bytes = 0
            model(ids, labels=ids).loss.backward()
        clip_gradients(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        times.append(time.perf_counter() - start)
    return times, payload.bytes


def status(field: str) -> int:
    """Bytes of a field of this process's status."""
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) * 1024


def work(case: dict[str, Any]) -> dict[str, Any]:
    """One process of a world."""
    torch.set_num_threads(1)
    mesh = None
    if case["processes"] > 1:
        dist.init_process_group(
            "gloo", init_method=case["meet"], rank=int(os.environ["RANK"]), world_size=case["processes"]
        )
        mesh = init_device_mesh("cpu", (case["processes"],), mesh_dim_names=("tp",))
    shape = {"hidden_size": case["width"], "num_hidden_layers": 1, "max_position_embeddings": case["window"]}
    shape |= {"embedding_dropout": 0.0, "residual_dropout": 0.0}
    train(LSRMConfig(vocab_size=100, **shape), mesh, 2, 2)  # libraries have what they keep
    if "limit" in case:
        most = status("VmData") + case["limit"]
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    memory = PeakMemory()
    times, payload = train(LSRMConfig(vocab_size=case["items"] + 2, **shape), mesh, case["rows"], case["steps"])
    found = {
        "peak_bytes": memory.bytes(),
        "ms_per_step": round(1000 * statistics.median(times[1:]), 1),
        "payload_bytes": payload,
    }
    if mesh is not None:
        dist.destroy_process_group()
    return found


def world(case: dict[str, Any], prefix: list[str], limit: float) -> dict[str, Any]:
    """All processes of a case: the most of each measurement, or {"failed": the last line of the first that did}."""
    with tempfile.TemporaryDirectory() as folder:
        case = {**case, "meet": f"file://{folder}/meet"}
        words = [*prefix, sys.executable, __file__, "--worker", json.dumps(case)]
        started = [
            subprocess.Popen(
                words,
                env={**os.environ, **LIVE, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(case["processes"])
        ]
        end = time.monotonic() + limit
        # The others of a process that fails would wait for it.
        while time.monotonic() < end and {process.poll() for process in started} <= {None, 0}:
            if all(process.poll() == 0 for process in started):
                break
            time.sleep(0.2)
        failed = any(process.poll() != 0 for process in started)
        first = next((index for index, process in enumerate(started) if process.poll()), None)
        for process in started:
            if process.poll() is None:
                process.kill()
        ends = [process.communicate() for process in started]
    if failed:
        errors = f"not done after {limit:.0f} s" if first is None else ends[first][1].strip()
        return {"failed": (errors or "ended without a word").splitlines()[-1][:200]}
    lines = [next(line for line in out.splitlines() if line.startswith(MARK)) for out, _ in ends]
    found = [json.loads(line.removeprefix(MARK)) for line in lines]
    return {name: max(one[name] for one in found) for name in found[0]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Memory, bytes and time over V and n."""
    points: list[dict[str, Any]] = []
    for items in options.vocabularies:
        for processes in options.processes:
            case = {"items": items, "processes": processes, "width": options.width, "rows": options.rows}
            case |= {"window": options.window, "steps": options.steps}
            found = world(case, shlex.split(options.prefix), options.limit)
            if "failed" in found:
                raise RuntimeError(f"{items} items in {processes} processes: {found['failed']}")
            if processes > 1:
                found["expected_payload_bytes"] = expected_bytes(options.rows, options.window, options.width)
            points.append(case | found)
            print(json.dumps(points[-1]), flush=True)
    slopes = {
        n: slope([(one["items"], one["peak_bytes"]) for one in points if one["processes"] == n])
        for n in options.processes
    }
    base = slopes.get(1)
    per_item = {
        str(n): {"bytes_per_item": round(one, 1)} | ({"of_one_process": round(one / base, 3)} if base else {})
        for n, one in slopes.items()
    }
    return {"points": points, "slopes": per_item}


def beyond_one(options: argparse.Namespace) -> dict[str, Any]:
    """A table for which one process has no room, and two have."""
    case = {"items": options.items, "width": options.width, "rows": options.rows, "window": options.window}
    case |= {"steps": options.steps}
    prefix = shlex.split(options.prefix)
    free = world({**case, "processes": 2}, prefix, options.limit)
    if "failed" in free:
        raise RuntimeError(f"two processes without a limit: {free['failed']}")
    limit = int(options.room * free["peak_bytes"])
    found = {"case": case, "two_without_limit": free, "limit_bytes": limit}
    for name, processes in (("one", 1), ("two", 2)):
        found[name] = world({**case, "processes": processes, "limit": limit}, prefix, options.limit)
        print(name, json.dumps(found[name]), flush=True)
    found["one_fails_where_two_train"] = "failed" in found["one"] and "failed" not in found["two"]
    return found


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--vocabularies", type=int, nargs="+", default=[100_000, 200_000, 400_000, 800_000])
    result.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    result.add_argument("--items", type=int, help="instead: a table for which one process has no room")
    result.add_argument("--width", type=int, default=32, help="numbers in an item's vector")
    result.add_argument("--rows", type=int, default=8, help="of a batch")
    result.add_argument("--window", type=int, default=8, help="items in a row")
    result.add_argument("--steps", type=int, default=4, help="of which the first is not timed")
    result.add_argument("--room", type=float, default=1.3, help="limit over what each of two processes takes")
    result.add_argument("--limit", type=float, default=1800, help="seconds after which a world is ended")
    result.add_argument("--prefix", default="", help="stands in front of every process")
    result.add_argument("--results", type=Path, default=RESULTS, help="folder of vocabulary_parallel.json")
    result.add_argument("--worker", help=argparse.SUPPRESS)
    return result


def main() -> None:
    """Measures one of the two, and puts it into the file beside the other."""
    options = parser().parse_args()
    if options.worker:
        print(MARK + json.dumps(work(json.loads(options.worker))), flush=True)
        return
    name = "over_items" if options.items is None else "beyond_one"
    found = measure(options) if options.items is None else beyond_one(options)
    hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "threads_per_process": 1}
    hardware["torch"] = torch.__version__
    result = options.results / "vocabulary_parallel.json"
    content = json.loads(result.read_text()) if result.exists() else {}
    content[name] = {"command": command(sys.argv), "commit": source_commit(), "hardware": hardware, **found}
    write_whole(result, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
