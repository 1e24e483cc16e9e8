"""python benchmarks/divided_memory.py: is the memory that `sr-transformers plan` states for a model that is divided
over processes the memory that training takes?

For every strategy a launcher starts two processes (gloo on this machine, one thread each). Each trains a model of two
numbers per item for two steps through `LSRMTrainer`, so that libraries have what they keep, notes its resident set,
and trains the 98k model for three steps, from its first weights on. The plan of a process stands beside the most that
one of them took. Freed memory goes back to the system at once, as in `memory.py`.

Written to benchmarks/results/divided_memory.json. Linux only: it reads /proc.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import torch
from harness import RESULTS, command
from logs import SHAPES, generate
from memory import LIVE, PeakMemory

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments, PreparedData
from sr_transformers.data.prepare import prepare
from sr_transformers.planning.memory import Work
from sr_transformers.planning.plan import compare_with_measured
from sr_transformers.records import source_commit, write_whole
from sr_transformers.training.train import leave_processes
from sr_transformers.training.vocabulary_parallel import mesh_of, new_divided

# As the plan calls them, and the arguments that ask for them.
STRATEGIES: dict[str, dict[str, Any]] = {"ddp": {}, "fsdp2": {"fsdp": True}, "table/2": {"tp_size": 2}}
PROCESSES = 2
STEPS = 3  # from the second on everything is allocated


def train(config: LSRMConfig, data: PreparedData, rows: int, steps: int, asked: dict[str, Any], folder: str) -> None:
    """Trains new weights on this process's part of so many rows per process."""
    arguments = LSRMTrainingArguments(
        folder,
        per_device_train_batch_size=rows,
        max_steps=steps,
        precision="fp32",
        switch_optimizer=False,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        disable_tqdm=True,
        **asked,
    )
    mesh = mesh_of(arguments)
    model = LSRMForCausalLM(config) if mesh is None else new_divided(config, mesh)
    LSRMTrainer(model, arguments, train_dataset=data.train_dataset()).train()


def work(strategy: str, folder: Path, rows: int) -> None:
    """One process: writes its peak beside the log."""
    torch.set_num_threads(1)
    data, asked = PreparedData(folder / "data"), STRATEGIES[strategy]
    small = {"hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8}
    train(LSRMConfig(vocab_size=data.vocab_size, **small), data, 2, 2, asked, str(folder / "out"))
    memory = PeakMemory()
    train(LSRMConfig.from_size("98k", vocab_size=data.vocab_size), data, rows, STEPS, asked, str(folder / "out"))
    (folder / f"peak.{os.environ['RANK']}").write_text(str(memory.bytes()))
    leave_processes()


def measure(strategy: str, folder: Path, rows: int, prefix: list[str]) -> dict[str, Any]:
    """The plan of a strategy beside what its processes took."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(PROCESSES)]
    words = [*prefix, *launch, __file__, "--worker", strategy, "--work", str(folder), "--rows", str(rows)]
    result = subprocess.run(words, env={**os.environ, **LIVE, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{shlex.join(words)} failed:\n{result.stderr[-3000:]}")
    peaks = [int((folder / f"peak.{rank}").read_text()) for rank in range(PROCESSES)]
    config = LSRMConfig.from_size("98k", vocab_size=PreparedData(folder / "data").vocab_size)
    width = config.max_position_embeddings
    of_plan = Work(rows=rows, width=width, precision="fp32", device="cpu")
    found = compare_with_measured(strategy, config, of_plan, PROCESSES, max(peaks))
    return {"strategy": strategy, "items": config.vocab_size - 2, "rows": rows, "width": width, "peaks": peaks, **found}


def main() -> None:
    """Measures all strategies and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="240k", help="of the log")
    parser.add_argument("--rows", type=int, default=8, help="of each process's batch")
    parser.add_argument("--prefix", default="", help="stands in front of the launcher")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of divided_memory.json")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=STRATEGIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.work, options.rows)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        prepare(pl.DataFrame(generate(SHAPES[options.shape])), Path(name) / "data")
        for strategy in STRATEGIES:
            rows.append(measure(strategy, Path(name), options.rows, shlex.split(options.prefix)))
            print(json.dumps({key: value for key, value in rows[-1].items() if key != "parts"}), flush=True)
    hardware = {"machine": platform.machine(), "threads_per_process": 1, "torch": torch.__version__}
    content = {"command": command(sys.argv), "commit": source_commit(), "hardware": hardware, "rows": rows}
    write_whole(options.results / "divided_memory.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
