"""Where the time of training goes: a table that sums to the step, and a trace to look into.

A few steady steps run under `torch.profiler`. Forward is cut into ranges by hooks on the model's modules, which exist
only while those steps run. Backward is told apart without hooks: autograd gives every backward node the sequence number
of the operation that made it, so its time goes to the part in which that operation ran. Sums of gradients
(AccumulateGrad) have no such number and go to the node before them; what follows backward up to the end of the
optimizer's step (clipping) is the optimizer's. A part's time is what its operations and the Python between them took
themselves, so parts are disjoint; `other` is the rest of the step.

On an accelerator the time of a part is that of its kernels, and `other` holds the time in which the device had nothing
to do; that way was not run. Waiting for input and evaluation are measured over the whole run with a clock. What the
profiler itself costs is measured too: the steps before the profiled ones, timed without it, stand beside them.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainerCallback

from sr_transformers.records import write_whole

EMBEDDING, ATTENTION, FFN, HEAD = "embedding", "attention", "feed-forward", "loss head"
DATA, OPTIMIZER, EVALUATION, OTHER = "data wait", "optimizer", "evaluation", "other"
PARTS = (DATA, EMBEDDING, ATTENTION, FFN, HEAD, OPTIMIZER, EVALUATION, OTHER)
TABLE, RECORD, TRACE = "profile.txt", "profile.json", "trace.json"
_STEP, _FIRST, _RANGE = "sr_transformers:step", "sr_transformers:first step", "sr_transformers:part:"
_BACKWARD, _ACCUMULATE = "autograd::engine::evaluate_function: ", "AccumulateGrad"
_BY_TORCH = {"enumerate(DataLoader)": DATA, "Optimizer.step": OPTIMIZER}  # ranges that torch makes itself
# Module's own name -> the part that begins where it is entered. A part lasts until the next begins: the mask is made
# between the two embeddings, residual additions follow their block, the loss follows the last norm.
_BEGINS = {
    "embed_tokens": EMBEDDING,
    "embed_positions": EMBEDDING,
    "input_layernorm": ATTENTION,
    "post_attention_layernorm": FFN,
    "norm": HEAD,
}


class StepProfiler(TrainerCallback):
    """Profiles some steps of a run and writes `profile.txt`, `profile.json` and `trace.json`.

    Args:
        folder: made if missing; only the first process writes.
        warm_up: steps before the profiled ones; the last of them are timed without the profiler.
        steps: profiled steps, after one more that is thrown away. An evaluation or a checkpoint ends them early.

    Raises:
        FileExistsError: if the folder holds a profile already.
        ValueError: for fewer than 4 steps of warm-up or none to profile; when training begins, if the model is
            compiled; when it ends, if it was too short to profile a step.
    """

    def __init__(self, folder: str | Path, warm_up: int = 20, steps: int = 5):
        if warm_up < 4 or steps < 1:
            raise ValueError(f"{warm_up} steps of warm-up and {steps} to profile; give at least 4 and 1.")
        self.folder, self.warm_up, self.steps = Path(folder), warm_up, steps
        if (self.folder / RECORD).exists():
            raise FileExistsError(f"{self.folder} holds a profile already; choose another folder.")
        self.milliseconds: dict[str, float] = {}
        self._profiler: Any = None
        self._hooks: list[Any] = []
        self._range: Any = None
        self._step_range: Any = None
        self._profiled = self._seen = 0
        self._clock: list[float] = []  # lengths of unprofiled steps
        self._evaluating = 0.0

    # What the Trainer calls

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.torch_compile:
            raise ValueError(
                "a profile tells the parts of a step apart by the model's modules, which a compiled model runs as one: "
                "profile without torch_compile."
            )
        if args.tp_size > 1:
            raise ValueError("a profile does not see look-ups in a divided item table: profile with tp_size 1.")
        self._loader = kwargs["train_dataloader"]
        self._started = self._last = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        self._seen += 1
        interrupted = control.should_evaluate or control.should_save
        if self._profiler is not None:
            self._step_range.__exit__(None, None, None)
            self._profiled += 1  # from -1: the first step pays for the profiler's own start
            if interrupted or self._profiled == self.steps:
                self._stop()
            else:
                self._begin_step(_STEP)
        elif not self.milliseconds:
            if self._seen > self.warm_up // 2:
                self._clock.append(now - self._last)
            if self._seen >= self.warm_up and not interrupted:
                self._start(kwargs["model"])
        self._last = time.perf_counter()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._evaluating += next((v for k, v in kwargs["metrics"].items() if k.endswith("_runtime")), 0.0)
        self._last = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds = time.perf_counter() - self._started
        if self._profiler is not None:  # training ended before as many steps as were wanted
            self._stop()
        if not self.milliseconds:
            raise ValueError(
                f"--profile: training ended after {self._seen} steps, before {self.warm_up} of warm-up and one that no "
                "evaluation interrupts; train for longer."
            )
        if state.is_world_process_zero:
            self._write(seconds)

    # Profiling

    def _start(self, model: nn.Module) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities)
        self._profiler.__enter__()
        for name, module in model.named_modules():
            own = name.rsplit(".", 1)[-1]
            if own in _BEGINS:
                self._hooks.append(module.register_forward_pre_hook(self._beginner(_BEGINS[own])))
            if own == "embed_tokens":
                self._hooks.append(module.register_forward_hook(self._beginner(ATTENTION)))  # the mask
            if own.isdigit() or not name:  # a block; the whole model. always_call: checkpointing leaves blocks half-way
                self._hooks.append(module.register_forward_hook(self._ender(), always_call=True))
        self._profiled = -1
        self._begin_step(_FIRST)

    def _stop(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._profiler.__exit__(None, None, None)
        if self._profiled > 0:
            self.milliseconds = attribute(self._profiler.events())
            self.folder.mkdir(parents=True, exist_ok=True)
            trace = self.folder / TRACE
            self._profiler.export_chrome_trace(str(trace))
            write_whole(trace, trace.read_text(encoding="utf-8").replace(str(trace), TRACE))  # it notes its own place
        self._profiler = None

    def _begin_step(self, name: str) -> None:
        self._step_range = record_function(name)
        self._step_range.__enter__()

    def _beginner(self, part: str) -> Any:
        def begin(*_: Any) -> None:
            self._end()
            self._range = record_function(_RANGE + part)
            self._range.__enter__()

        return begin

    def _ender(self) -> Any:
        return lambda *_: self._end()

    def _end(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None

    # Writing

    def _write(self, seconds: float) -> None:
        step = sum(self.milliseconds.values())
        evaluation = 1e3 * self._evaluating / self._seen
        parts = {**self.milliseconds, EVALUATION: evaluation}
        total = step + evaluation
        waited = self._loader.seconds_waited
        unprofiled = 1e3 * statistics.median(self._clock)
        record = {
            "milliseconds_per_step": {name: parts.get(name, 0.0) for name in PARTS},
            "share": {name: parts.get(name, 0.0) / total for name in PARTS},
            "step_milliseconds": step,
            "step_milliseconds_without_profiler": unprofiled,
            "profiled_steps": self._profiled,
            "whole_run": {
                "steps": self._seen,
                "seconds": seconds,
                "input_wait_seconds": waited,
                "input_wait_share": waited / seconds,
                "evaluation_seconds": self._evaluating,
            },
        }
        write_whole(self.folder / RECORD, json.dumps(record, indent=2) + "\n")
        write_whole(self.folder / TABLE, show(record) + "\n")


def attribute(events: Any) -> dict[str, float]:
    """Milliseconds per step of every part but the evaluation, from a profiler's events; they sum to the step."""
    cpu = sorted((e for e in events if e.device_type == DeviceType.CPU), key=lambda e: e.time_range.start)
    steps = [e for e in cpu if e.name == _STEP]
    begin, end = steps[0].time_range.start, steps[-1].time_range.end
    on_device = any(e.self_device_time_total for e in cpu)
    parts: dict[int, str | None] = {}  # of an event, by its identity
    made: dict[tuple[int, int], str] = {}  # by thread and number: the part in which an operation of forward ran
    previous: str | None = None  # of the backward node before
    after_backward = False
    totals = dict.fromkeys(PARTS, 0.0)
    for event in cpu:
        if event.name in (_STEP, _FIRST):
            after_backward = False
        part = parts.get(id(event.cpu_parent)) if event.cpu_parent is not None else None
        own = _own_part(event.name)
        if own is not None:
            part = own
            after_backward &= own != OPTIMIZER
        elif event.name.startswith(_BACKWARD):
            if not event.name.endswith(_ACCUMULATE):
                previous = made.get((event.fwd_thread, event.sequence_nr), previous)
            part, after_backward = previous, True
        elif part is None and after_backward:
            part = OPTIMIZER  # between backward and the optimizer's step: clipping
        elif part is not None and event.sequence_nr >= 0 and event.scope == 0:
            made[event.thread, event.sequence_nr] = part
        parts[id(event)] = part
        if part is not None and begin <= event.time_range.start < end:
            device_time = on_device and part != DATA
            totals[part] += event.self_device_time_total if device_time else event.self_cpu_time_total
    length = sum(step.cpu_time_total for step in steps)
    totals[OTHER] = max(length - sum(totals.values()), 0.0)
    return {name: totals[name] / 1e3 / len(steps) for name in PARTS if name != EVALUATION}


def _own_part(name: str) -> str | None:
    if name.startswith(_RANGE):
        return name.removeprefix(_RANGE)
    return next((part for prefix, part in _BY_TORCH.items() if name.startswith(prefix)), None)


def show(record: dict[str, Any]) -> str:
    """The table for people."""
    run, parts = record["whole_run"], record["milliseconds_per_step"]
    lines = [f"{'part':14}{'ms a step':>12}{'share':>9}"]
    lines += [f"{name:14}{parts[name]:12.2f}{record['share'][name]:9.1%}" for name in PARTS]
    lines.append(f"{'sum':14}{sum(parts.values()):12.2f}{sum(record['share'].values()):9.1%}")
    step, plain = record["step_milliseconds"], record["step_milliseconds_without_profiler"]
    return "\n".join(
        [
            *lines,
            "",
            f"{record['profiled_steps']} profiled steps of {step:.1f} ms; without profiler {plain:.1f} ms (median).",
            f"Whole run: {run['steps']} steps in {run['seconds']:.1f} s; {run['input_wait_share']:.2%} of it spent "
            f"waiting for input; evaluation {run['evaluation_seconds']:.1f} s, spread over the steps in the table.",
        ]
    )
