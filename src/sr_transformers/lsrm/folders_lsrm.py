# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Folders that hold a whole model: saved so that a reader without this package can use them, and loaded whole or not at
all. transformers would go on with random numbers for weights that a file lacks.
"""

from pathlib import Path

from .configuration_lsrm import AUTO_MAP, CUSTOM_PIPELINES
from .divided_files_lsrm import taken_apart, write_rows

_SHOWN = 6  # names in a message


class WholeFoldersMixin:
    """What `LSRMPreTrainedModel` does otherwise than transformers when it saves and loads."""

    @classmethod
    def from_pretrained(cls, name_or_path, *args, output_loading_info=False, **kwargs):
        """Loads as transformers does, and refuses a model of which weights are missing.

        Args:
            output_loading_info: return also what transformers found; to look at it is the caller's business then.

        Raises:
            ValueError: naming the missing weights. Tied ones are stored once and never missing.
        """
        model, found = super().from_pretrained(name_or_path, *args, output_loading_info=True, **kwargs)
        if output_loading_info:
            return model, found
        missing = sorted(found["missing_keys"])
        if missing:
            more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
            raise ValueError(
                f"{name_or_path} lacks weights of {cls.__name__}: {', '.join(missing[:_SHOWN])}{more}. Random numbers "
                "would stand in for them: copy or download it again, or load another checkpoint of the run."
            )
        return model

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves as transformers does, and makes the folder complete for a reader without this package.

        The folder gets the code, and config.json names all classes, whichever is saved. Who may read config.json may
        read the weights. All processes that have a divided item table together must call this: each writes its rows.
        """
        self.config.auto_map = dict(AUTO_MAP)
        self.config.custom_pipelines = dict(CUSTOM_PIPELINES)
        try:
            divided, kwargs = taken_apart(self, kwargs)
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            del self.config.custom_pipelines
        write_rows(Path(save_directory), divided)
        for weights in Path(save_directory).glob("*.safetensors"):
            mode = (weights.parent / "config.json").stat().st_mode & 0o777
            if weights.stat().st_mode & 0o777 != mode:
                weights.chmod(mode)


__all__ = ["WholeFoldersMixin"]
