"""Runs that were stopped in the middle and damaged before they go on, and outputs that hold something else.

A checkpoint that was changed after it was written is refused: to go on from it would give other weights than the run
that was never stopped. One that was never finished is passed over.
"""

import os

from bad_inputs.models import EVIL, evil_archive
from bad_inputs.row import RESUME, Damage, Row, both, cut, edit, flip, remove, set_keys, write

LAST = "s/checkpoint-40"


def _checkpoint(id: str, what: str, name: str, damage: Damage) -> Row:
    """The message names the file and the checkpoint."""
    escaped = name.replace(".", r"\.")
    return Row(id, what, RESUME, rf"checkpoint-40.*{escaped}|{escaped}.*checkpoint-40", damage)


def _evil(name: str) -> Damage:
    return lambda here: evil_archive(here / LAST / name)


ROWS = [
    Row("D030", "nothing is wrong: it goes on", RESUME, "lsrm recipe", code=0, makes=("s",)),
    _checkpoint("D035", "malicious optimizer.pt", "optimizer.pt", _evil("optimizer.pt")),
    _checkpoint("D036", "malicious optimizer.pt, a bare pickle", "optimizer.pt", write(f"{LAST}/optimizer.pt", EVIL)),
    _checkpoint("D037", "malicious scheduler.pt", "scheduler.pt", _evil("scheduler.pt")),
    _checkpoint("D038", "malicious scheduler.pt, a bare pickle", "scheduler.pt", write(f"{LAST}/scheduler.pt", EVIL)),
    _checkpoint("D039", "malicious rng_state.pth", "rng_state.pth", _evil("rng_state.pth")),
    _checkpoint("D040", "malicious rng_state.pth, a bare pickle", "rng_state.pth", write(f"{LAST}/rng_state.pth", EVIL)),
    _checkpoint("D041", "malicious training_args.bin", "training_args.bin", write(f"{LAST}/training_args.bin", EVIL)),
    _checkpoint("D043", "malicious pytorch_model.bin instead of the weights", "model.safetensors",
                both(remove(f"{LAST}/model.safetensors"), write(f"{LAST}/pytorch_model.bin", EVIL))),
    _checkpoint("D044", "malicious pytorch_model.bin beside the weights", "pytorch_model.bin",
                write(f"{LAST}/pytorch_model.bin", EVIL)),
    _checkpoint("D065", "optimizer.pt removed", "optimizer.pt", remove(f"{LAST}/optimizer.pt")),
    _checkpoint("D066", "optimizer.pt cut", "optimizer.pt", cut(f"{LAST}/optimizer.pt")),
    _checkpoint("D067", "scheduler.pt removed", "scheduler.pt", remove(f"{LAST}/scheduler.pt")),
    _checkpoint("D068", "scheduler.pt cut", "scheduler.pt", cut(f"{LAST}/scheduler.pt")),
    _checkpoint("D069", "rng_state.pth removed", "rng_state.pth", remove(f"{LAST}/rng_state.pth")),
    _checkpoint("D070", "rng_state.pth cut", "rng_state.pth", cut(f"{LAST}/rng_state.pth")),
    _checkpoint("D071", "trainer_state.json removed", "trainer_state.json", remove(f"{LAST}/trainer_state.json")),
    _checkpoint("D072", "trainer_state.json cut", "trainer_state.json", cut(f"{LAST}/trainer_state.json")),
    _checkpoint("D073", "model.safetensors removed", "model.safetensors", remove(f"{LAST}/model.safetensors")),
    _checkpoint("D074", "model.safetensors cut", "model.safetensors", cut(f"{LAST}/model.safetensors")),
    _checkpoint("D075", "config.json removed", "config.json", remove(f"{LAST}/config.json")),
    _checkpoint("D076", "config.json cut", "config.json", cut(f"{LAST}/config.json")),
    _checkpoint("D077", "a bit of the weights flipped", "model.safetensors", flip(f"{LAST}/model.safetensors", 0.9, 1)),
    _checkpoint("D078", "a bit of the optimizer flipped", "optimizer.pt", flip(f"{LAST}/optimizer.pt", 0.5, 1)),
    _checkpoint("D090", "trainer_state.json says step 10^9", "trainer_state.json",
                set_keys(f"{LAST}/trainer_state.json", global_step=10**9)),
    _checkpoint("D092", "COMPLETE is cut", "COMPLETE", cut(f"{LAST}/COMPLETE")),
    Row("D100", "weights of a checkpoint flipped, recommended", f"recommend --model {LAST} --history i1",
        r"checkpoint-40/model\.safetensors was changed", flip(f"{LAST}/model.safetensors", 0.6, 6)),
    Row("D101", "the same, evaluated", f"evaluate --model {LAST} --data DATA",
        r"checkpoint-40/model\.safetensors was changed", flip(f"{LAST}/model.safetensors", 0.6, 6)),
    Row("D102", "the vocabulary of a checkpoint changed", f"recommend --model {LAST} --history i1",
        r"checkpoint-40/tokenizer\.json was changed",
        edit(f"{LAST}/tokenizer.json", lambda content: content.replace(b'"i7"', b'"i_"', 1))),
    Row("D103", "settings.json is a pipe", RESUME, "s is not empty and holds no run of ours",
        both(remove("s/settings.json"), lambda here: os.mkfifo(here / "s/settings.json"))),
    Row("D079", "the last checkpoint was not finished: it goes on from the one before", RESUME, "lsrm recipe",
        remove(f"{LAST}/COMPLETE"), code=0, makes=("s",)),
    Row("D081", "a FILE checkpoint-99", RESUME, "lsrm recipe", write("s/checkpoint-99", "mine"), code=0,
        makes=("s",)),
    Row("D085", "a folder checkpoint-x", RESUME, "lsrm recipe", write("s/checkpoint-x/y", "mine"), code=0, makes=("s",)),
    Row("D086", "settings.json removed", RESUME, "s.*(not empty|no run of ours|settings)", remove("s/settings.json")),
    Row("D087", "settings.json cut", RESUME, "other settings|settings.json", cut("s/settings.json")),
    Row("D088", "another seed", f"{RESUME} --seed 7", "other settings|seed"),
    Row("D089", "histories.arrow changed", "train RECIPE --data d --output s", r"histories\.arrow|other settings",
        flip("d/histories.arrow")),
    Row("D091", "a finished run", "train RECIPE --data DATA --output m", "finished run"),
    Row("D095", "a finished run, finetuned into", "finetune RECIPE --model RUN --data DATA --output m", "finished run"),
    Row("D096", "somebody's folder", "train RECIPE --data DATA --output e", "not empty", write("e/mine.txt", "mine")),
    Row("N081", "a run of other weights", "finetune RECIPE --model RUN --data DATA --output s", "other settings|settings"),
    Row("B075", "a refused value, then the same output with a right one", RESUME.replace(" s", " o"), "lsrm recipe",
        code=0, makes=("o",), first="train RECIPE --data DATA --output o --learning_rate .nan"),
]  # fmt: skip
