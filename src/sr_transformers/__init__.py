"""sr_transformers: large ID-only sequential recommenders, the Hugging Face way.

Importing this package makes `AutoConfig`, `AutoModel` and `AutoModelForCausalLM` know the model type "lsrm". Public
names are fetched on first use (PEP 562), so that the import itself takes milliseconds.
"""

import importlib
from typing import Any

from sr_transformers import _registration

__version__ = "0.1.0"

_PUBLIC = {
    "LSRMConfig": "sr_transformers.lsrm.configuration_lsrm",
    "LSRMModel": "sr_transformers.lsrm.modeling_lsrm",
    "LSRMForCausalLM": "sr_transformers.lsrm.modeling_lsrm",
    "prepare": "sr_transformers.data.prepare",
    "append": "sr_transformers.data.append",
    "describe": "sr_transformers.data.describe",
    "StreamedData": "sr_transformers.data.streaming",
    "PreparedData": "sr_transformers.data.prepared",
    "Checkpoint": "sr_transformers.evaluation.loading",
    "evaluate": "sr_transformers.evaluation.evaluator",
    "ModelScorer": "sr_transformers.evaluation.model_scorer",
    "run_tasks": "sr_transformers.evaluation.tasks.runner",
    "model_contestant": "sr_transformers.evaluation.tasks.contestants",
    "TaskOptions": "sr_transformers.evaluation.tasks.task",
    "LSRMTrainer": "sr_transformers.training.trainer",
    "LSRMTrainingArguments": "sr_transformers.training.arguments",
    "Recipe": "sr_transformers.training.recipe",
    "train": "sr_transformers.training.train",
    "auto_recipe": "sr_transformers.training.portfolio",
    "tune": "sr_transformers.tuning.search",
    "finetune": "sr_transformers.finetuning.finetune",
    "add_items": "sr_transformers.finetuning.vocabulary_transfer",
    "with_vocabulary": "sr_transformers.finetuning.vocabulary_transfer",
    "FractionOfData": "sr_transformers.data.fractions",
    "Study": "sr_transformers.scaling.studies.study",
    "run_study": "sr_transformers.scaling.studies.runner",
    "advise": "sr_transformers.scaling.studies.advise",
    "Recommender": "sr_transformers.serving.recommender",
    "Recommendation": "sr_transformers.serving.recommendation",
    "ExplainedRecommendation": "sr_transformers.serving.recommendation",
    "recommend_all": "sr_transformers.serving.recommendation_lists",
    "Session": "sr_transformers.serving.session",
    "RunRecord": "sr_transformers.records",
    "publish": "sr_transformers.hub.publish",
    "publish_data": "sr_transformers.hub.data_set",
    "CardOptions": "sr_transformers.hub.model_card",
    "NextItemPipeline": "sr_transformers.lsrm.pipeline_lsrm",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sr_transformers' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


_registration.install()
