"""Makes transformers' Auto classes and its `pipeline` know LSRM without importing transformers: that import takes
seconds, and a command such as `--help` should not pay for it.

The classes are registered when the Auto classes and pipelines themselves are imported, by whomever. Importing our model
inside a half-finished import of transformers would fail, so registration waits until those modules are complete that it
needs.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_CONFIG_AUTO = "transformers.models.auto.configuration_auto"
_MODEL_AUTO = "transformers.models.auto.modeling_auto"
_TOKENIZER_AUTO = "transformers.models.auto.tokenization_auto"
_PIPELINES = "transformers.pipelines"
_OUR_CONFIG = "sr_transformers.lsrm.configuration_lsrm"
_OUR_MODEL = "sr_transformers.lsrm.modeling_lsrm"
_OUR_PIPELINE = "sr_transformers.lsrm.pipeline_lsrm"
_OUR_TOKENIZER = "sr_transformers.lsrm.tokenization_lsrm"
# Importing our model is possible when none of these is half-way through its own import.
_NEEDED = (
    "transformers.modeling_utils",
    "transformers.modeling_layers",
    "transformers.generation.utils",
    _OUR_CONFIG,
    _OUR_MODEL,
)

_NEEDED_TO_TOKENIZE = ("transformers.tokenization_utils_tokenizers", _OUR_CONFIG, _OUR_TOKENIZER)

_WATCHED = (
    *(_CONFIG_AUTO, _MODEL_AUTO, _TOKENIZER_AUTO, _PIPELINES, _OUR_PIPELINE),
    *dict.fromkeys((*_NEEDED, *_NEEDED_TO_TOKENIZE)),
)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls `_register` whenever one of the watched modules has been executed."""

    def __init__(self) -> None:
        self.pending: set[str] = set()  # watched modules that have begun but not finished
        self.registering = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _WATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            self.pending.add(fullname)
            try:
                execute(module)
            finally:
                self.pending.discard(fullname)
            _register(self)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register(hook: _AfterImport) -> None:
    if hook.registering:  # registration imports watched modules itself
        return
    hook.registering = True
    try:
        complete = {
            name for name in (_CONFIG_AUTO, _MODEL_AUTO, _TOKENIZER_AUTO, _PIPELINES) if name in sys.modules
        } - hook.pending
        if _CONFIG_AUTO in complete and _OUR_CONFIG not in hook.pending:
            from transformers.models.auto.configuration_auto import AutoConfig

            from sr_transformers.lsrm.configuration_lsrm import LSRMConfig

            AutoConfig.register("lsrm", LSRMConfig, exist_ok=True)
        if _MODEL_AUTO in complete and not hook.pending.intersection(_NEEDED):
            from transformers.models.auto.modeling_auto import AutoModel, AutoModelForCausalLM

            from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
            from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM, LSRMModel

            AutoModel.register(LSRMConfig, LSRMModel, exist_ok=True)
            AutoModelForCausalLM.register(LSRMConfig, LSRMForCausalLM, exist_ok=True)
        if _TOKENIZER_AUTO in complete and not hook.pending.intersection(_NEEDED_TO_TOKENIZE):
            from transformers.models.auto.tokenization_auto import AutoTokenizer

            from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
            from sr_transformers.lsrm.tokenization_lsrm import LSRMTokenizer

            AutoTokenizer.register(LSRMConfig, fast_tokenizer_class=LSRMTokenizer, exist_ok=True)
        if _PIPELINES in complete and not hook.pending.intersection((*_NEEDED, _MODEL_AUTO, _OUR_PIPELINE)):
            from transformers.models.auto.modeling_auto import AutoModelForCausalLM
            from transformers.pipelines import PIPELINE_REGISTRY

            from sr_transformers.lsrm.pipeline_lsrm import NEXT_ITEM, NextItemPipeline

            if NEXT_ITEM not in PIPELINE_REGISTRY.get_supported_tasks():
                PIPELINE_REGISTRY.register_pipeline(
                    NEXT_ITEM, pipeline_class=NextItemPipeline, pt_model=AutoModelForCausalLM, type="text"
                )
    finally:
        hook.registering = False


def install() -> None:
    """Registers now what is imported already, and the rest when it is."""
    hook = _AfterImport()
    sys.meta_path.insert(0, hook)
    _register(hook)
