"""python benchmarks/service.py --model RUN --data PREPARED: the service of recipes/service.py under load, on loopback.

Eight clients ask at once, each with histories of its own, and then one client asks the same alone: every answer must be
the same, or nothing is written. Times are those of a whole request as the client sees it. Writes results/service.json,
and the table of docs/service.md.
"""

import argparse
import json
import platform
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from sr_transformers import PreparedData
from sr_transformers.marks import put
from sr_transformers.records import source_commit, write_whole

HERE = Path(__file__).parent
RESULT = HERE / "results" / "service.json"
PAGE = HERE.parent / "docs" / "service.md"
SERVICE = HERE.parent / "recipes" / "service.py"
CLIENTS = 8


def ask(address: str, histories: list[list[str]]) -> tuple[list[Any], list[float]]:
    """Answers and seconds of requests, one after the other over one connection."""
    answers, seconds = [], []
    with httpx2.Client(base_url=address, timeout=60) as client:
        for history in histories:
            start = time.perf_counter()
            answer = client.post("/recommend", json={"history": history})
            seconds.append(time.perf_counter() - start)
            answers.append(answer.raise_for_status().json())
    return answers, seconds


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """p50 and p99."""
    return {f"p{share}_ms": round(float(np.percentile(seconds, share)) * 1000, 2) for share in (50, 99)}


def load(address: str, histories: list[list[str]]) -> dict[str, Any]:
    """Eight clients, then one, on the same histories.

    Raises:
        AssertionError: if an answer differs.
    """
    ask(address, histories[:20])  # the first requests are slower
    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = list(pool.map(lambda one: ask(address, histories[one::CLIENTS]), range(CLIENTS)))
    wall = time.perf_counter() - start
    together: list[Any] = [None] * len(histories)
    for one, (answers, _) in enumerate(parts):
        together[one::CLIENTS] = answers
    alone, seconds = ask(address, histories)
    differ = [index for index, pair in enumerate(zip(together, alone, strict=True)) if pair[0] != pair[1]]
    assert not differ, f"{len(differ)} answers differ under load, the first at request {differ[0]}"
    return {
        "requests": len(histories),
        "equal_answers": len(histories) - len(differ),
        "clients": CLIENTS,
        "together": milliseconds([s for _, part in parts for s in part])
        | {"requests_per_second": round(len(histories) / wall, 1)},
        "alone": milliseconds(seconds),
    }


def served(model: str) -> tuple[subprocess.Popen, str]:
    """The service in a process of its own, and its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVICE, model, "--port", str(port)], stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            httpx2.get(f"{address}/health", timeout=10).raise_for_status()
            return process, address
        except httpx2.HTTPError:
            if process.poll() is not None:
                break
            time.sleep(0.5)
    process.kill()
    raise RuntimeError(f"the service of {model} does not answer; start {SERVICE.name} by hand to see why.")


def table(found: dict[str, Any]) -> str:
    """The page's table."""
    lines = ["| clients | requests | equal answers | p50 | p99 |", "|---|---|---|---|---|"]
    for clients, part in ((found["clients"], found["together"]), (1, found["alone"])):
        times = " | ".join(f"{part[name]:.0f} ms" for name in ("p50_ms", "p99_ms"))
        lines.append(f"| {clients} | {found['requests']:,} | {found['equal_answers']:,} | {times} |")
    return "\n".join(lines)


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a run")
    parser.add_argument("--data", required=True, help="prepared folder, whose histories are asked about")
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    data = PreparedData(options.data)
    ids = data.item_ids.to_pylist()
    rows = np.resize(np.arange(len(data)), options.requests)
    items = (data.items(int(row), int(data.lengths[row])).tolist() for row in rows)
    histories = [[ids[token - 2] for token in one if token >= 2] for one in items]
    process, address = served(options.model)
    try:
        found = load(address, histories)
    finally:
        process.terminate()
        process.wait()
    record = {
        "command": "python benchmarks/service.py --model RUN --data PREPARED",
        "model": Path(options.model).name,
        "items": len(ids),
        **found,
        "machine": f"{platform.machine()}, the service and the clients on the same cores",
        "commit": source_commit(),
    }
    write_whole(RESULT, json.dumps(record, indent=2) + "\n")
    put(PAGE, "service", table(record))
    print(table(record))


if __name__ == "__main__":
    main()
