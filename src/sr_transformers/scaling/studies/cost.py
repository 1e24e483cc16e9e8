"""What a run costs before it runs: FLOPs, seconds from a short calibration on this machine, memory.

    seconds per target = positions x (c_1 6 N + c_2 6 V d + c_3 layers) + c_4

Calibration trains a few batches of the study's own shape for some of its sizes and fits the four constants, none below
zero. The estimate is for one process on this machine with nothing else running; the runner watches how much slower the
runs are than it.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from sr_transformers.data.fractions import CONTEXT
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.planning.memory import Work, peak, training_memory
from sr_transformers.scaling.studies.study import PlannedRun, Size
from sr_transformers.training.arguments import chosen_precision
from sr_transformers.training.optimizers import MUON, with_muon
from sr_transformers.training.recipe import Recipe

_PROCESS = 800 << 20  # bytes of a process with its libraries and a prepared log; measured


@dataclass
class Speed:
    """Seconds of this machine.

    Attributes:
        constants: seconds per FLOP of the blocks, per FLOP of the head, per layer and position, per position.
        measured: seconds per trained position by size, as measured.
        vocab_size: V.
    """

    constants: tuple[float, float, float, float]
    measured: dict[str, float]
    vocab_size: int

    def seconds_per_position(self, size: Size) -> float:
        """Forward, backward and update, in seconds per position trained on."""
        if size.name in self.measured:
            return self.measured[size.name]
        return float(np.dot(self.constants, _features(size, self.vocab_size)))


@dataclass
class Cost:
    """An estimate for one run.

    Attributes:
        targets: interactions seen, epochs included.
        training_flops, head_flops: as in `RunRecord`.
        seconds: training, validation and test.
        memory_bytes: of the process: its libraries, and what a step needs most (`planning.memory`).
    """

    targets: int
    training_flops: float
    head_flops: float
    seconds: float
    memory_bytes: int


def calibrate(sizes: Sequence[Size], recipe: Recipe, vocab_size: int, seconds: float = 2.0) -> Speed:
    """Times training on random batches of the recipe's shape.

    Args:
        sizes: at least one; two that are far apart give better estimates for the sizes between and beyond.
        seconds: how long to time each (at least three steps); the fastest step counts.
    """
    measured = {size.name: _time_size(size, recipe, vocab_size, seconds) for size in sizes}
    rows = np.array([_features(size, vocab_size) for size in sizes])
    values = np.array([measured[size.name] for size in sizes])
    # Relative errors count, or the largest size would fix everything.
    weighted = rows / values[:, None]
    scale = np.maximum(np.abs(weighted).max(axis=0), 1e-300)
    solution, _ = nnls(weighted / scale, np.ones(len(values)))
    constants = tuple((solution / scale).tolist())
    return Speed(constants, measured, vocab_size)  # type: ignore[arg-type]


def estimate(run: PlannedRun, data: PreparedData, recipe: Recipe, speed: Speed, validation_targets: int | None) -> Cost:
    """The cost of a run.

    Differs from what a record will say: users of a fraction are taken to be average ones, an early end is not foreseen.
    """
    size = run.size
    part = 1.0 if run.of == CONTEXT else run.fraction
    per_epoch = part * float(np.maximum(data.train_lengths - 1, 0).sum())
    targets = round(per_epoch * run.epochs)
    window = int(recipe.model.get("max_position_embeddings", 50))
    per_position = speed.seconds_per_position(size)
    validations = min(validation_targets or data.num_targets("validation"), data.num_targets("validation"))
    evaluated = validations * max(round(run.epochs), 1) + data.num_targets("test")
    # A forward pass alone is a third of a training step; the head scores one position per target.
    forward = per_position / 3 * min(window, float(np.mean(data.lengths)))
    n, vocabulary = size.num_non_embedding_parameters, data.vocab_size
    return Cost(
        targets,
        6.0 * n * targets,
        6.0 * vocabulary * size.width * targets,
        targets * per_position + evaluated * forward,
        _PROCESS + peak(training_memory(_settings(size, recipe).config(vocabulary), _work(recipe, window)))[1],
    )


def _settings(size: Size, recipe: Recipe) -> Recipe:
    return Recipe(recipe.name, {**recipe.model, **size.settings()}, recipe.training)


def _work(recipe: Recipe, window: int) -> Work:
    """What a step of the recipe does, for its memory."""
    training = recipe.training
    return Work(
        rows=int(training.get("per_device_train_batch_size", 32)),
        width=int(training.get("row_width") or window),
        precision=chosen_precision(training.get("precision", "auto")),
        optimizer=training.get("optimizer") or "adam",
        device="cuda" if torch.cuda.is_available() else "cpu",
        num_negatives=int(training.get("num_negatives", 0)),
    )


def _features(size: Size, vocab_size: int) -> np.ndarray:
    return np.array([6.0 * size.num_non_embedding_parameters, 6.0 * vocab_size * size.width, size.layers, 1.0])


def _time_size(size: Size, recipe: Recipe, vocab_size: int, seconds: float) -> float:
    settings = _settings(size, recipe)
    config = settings.config(vocab_size)
    window = config.max_position_embeddings
    width = int(recipe.training.get("row_width") or window)
    rows = int(recipe.training.get("per_device_train_batch_size", 32))
    generator = torch.Generator().manual_seed(0)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = accelerator or torch.device("cpu")
    model = LSRMForCausalLM(config).to(device).train()  # type: ignore[arg-type]
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    if recipe.training.get("optimizer") == MUON:  # a third of a step of small batches
        optimizer = with_muon(optimizer, model, 1e-3, 0.0)
    inputs = torch.randint(NUM_SPECIAL, vocab_size, (rows, width), generator=generator).to(device)
    positions = (torch.arange(width) % window).repeat(rows, 1).to(device)
    batch = {"input_ids": inputs, "position_ids": positions, "shift_labels": inputs}
    if config.needs_times:
        batch["times"] = positions * 3600
    if config.query_time:
        batch["query_times"] = batch["times"][:, -1] + 3600
    with tempfile.TemporaryDirectory() as folder:
        rounded = settings.arguments(folder).bf16

    def step() -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=rounded):
            loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())  # waits for an accelerator

    step()
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    # The fastest step: whatever else runs on this machine makes steps slower, nothing makes them faster.
    return min(taken) / (rows * width)
