"""A progress bar that says what matters: one short line per validation instead of every number that is logged."""

from typing import Any

from transformers import ProgressCallback

SHOWN = ("loss", "hr@10", "ndcg@10")


class TrainingProgress(ProgressCallback):
    """transformers' bar; training losses stand beside it, validations and the switch to SGD get a line each."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not (state.is_world_process_zero and self.training_bar is not None and logs):
            return
        if "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")
        if "eval_loss" in logs:
            shown = ", ".join(f"{name} {logs[f'eval_{name}']:.4f}" for name in SHOWN)
            self.training_bar.write(f"epoch {state.epoch:5.2f}  validation: {shown}")
        if "switched_to_sgd_at" in logs:
            self.training_bar.write(f"validation stopped improving: SGD from step {state.global_step} on")
