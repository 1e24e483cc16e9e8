"""Started by a launcher: trains one recipe after the other on several processes, and notes what each process saw.

several_trainings.py JOBS.json [PROGRAM ...]: the prepared log, and jobs with recipe, output folder, environment (which
stays) and, maybe, a folder of weights to begin with. A program with its arguments follows at the end.
Results go beside it, to JOBS.PROCESS.json: of every job its error, if it had one, how many users this process ranked
each time it computed for that, and how often a loss called the head instead of reading its weight.
"""

import json
import os
import runpy
import sys
from pathlib import Path

from accelerate import PartialState
from transformers import AutoModelForCausalLM

from sr_transformers import PreparedData, Recipe, train
from sr_transformers.evaluation import evaluator
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.lsrm import loss_lsrm
from sr_transformers.training.train import leave_processes

score, call = ModelScorer.score_here, loss_lsrm._called_loss
scored: list[int] = []
called: list[int] = []


def counted(self, histories, *args, **kwargs):
    scored.append(len(histories))
    return score(self, histories, *args, **kwargs)


def counted_call(hidden, *args, **kwargs):
    called.append(len(hidden))
    return call(hidden, *args, **kwargs)


if __name__ == "__main__":
    ModelScorer.score_here, loss_lsrm._called_loss = counted, counted_call
    evaluator.rows_of_scores = lambda vocab_size: 50
    jobs = Path(sys.argv[1])
    content, results = json.loads(jobs.read_text()), {}
    for job in content["jobs"]:
        for name, value in job.get("environment", {}).items():
            os.environ[name] = value
        scored.clear()
        called.clear()
        error = None
        try:
            more = {"with_baselines": False}
            if "model" in job:
                more |= {"model": AutoModelForCausalLM.from_pretrained(job["model"]), "origin": {"name": "given"}}
            train(Recipe.load(job["recipe"]), PreparedData(content["data"]), Path(job["output"]), **more)
        except ValueError as problem:
            error = str(problem)
        results[job["output"]] = {"error": error, "scored": list(scored), "called": len(called)}
    jobs.with_suffix(f".{PartialState().process_index}.json").write_text(json.dumps(results))
    if program := sys.argv[2:]:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")
    leave_processes()
