"""A Trainer that evaluates and predicts by ranking all items for every held-out target; no logits are kept."""

import time
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput

from sr_transformers.data.examples import EvalDataset
from sr_transformers.data.past_inputs import Past
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.evaluator import Kept, add_users, num_batches, report, scores_of, target_tokens
from sr_transformers.evaluation.metrics import DEFAULT_KS, RankingTotals
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.training.arguments import EVALUATION_KS
from sr_transformers.training.row_trainer import RowTrainer


class RankingOutput(PredictionOutput):
    """What `LSRMTrainer.predict` returns: transformers' tuple of three, and the report.

    `predictions` are the ranks, `(M,)` int64, 1 the best and -1 for a target outside the vocabulary; `label_ids` the
    tokens of the targets, `(M,)` int64; `metrics` numbers by name.

    Attributes:
        report: as `sr_transformers.evaluate` returns it.
    """

    report: dict[str, Any]


class RankingTrainer(RowTrainer):
    """Full ranking of the held-out targets of a prepared log; with `prepared` None transformers' own evaluation."""

    def evaluate(  # type: ignore[override]
        self,
        eval_dataset: EvalDataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Full ranking of all targets.

        Args:
            eval_dataset: `data.eval_dataset(...)`; None: that of the trainer.
            ignore_keys: for data sets of another kind, see transformers.

        Returns:
            `{prefix}_loss` (nats, mean over targets, over all processes), `_hr@k`, `_ndcg@k`, `_mrr`, `_coverage@k`,
            what `compute_metrics` adds, `_runtime` in seconds.

        Raises:
            TypeError: if this is not a data set of held-out targets, though the trainer has a prepared log.
        """
        if self.prepared is None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        dataset = self._held_out(eval_dataset if eval_dataset is not None else self.eval_dataset)
        start = time.perf_counter()
        totals, ranks = self.rank(dataset)
        metrics = self._named(dataset, totals, ranks, metric_key_prefix)
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - start
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.phases.wants_switch:
            self.switch_to_sgd()
        return metrics

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Full ranking of all targets of a data set, with the rank of each.

        Args:
            test_dataset: `data.eval_dataset("test")`.
            ignore_keys: for data sets of another kind, see transformers.

        Returns:
            `RankingOutput`; for data sets of another kind what transformers returns.

        Raises:
            TypeError: as `evaluate`.
        """
        if self.prepared is None:
            return super().predict(test_dataset, ignore_keys, metric_key_prefix)
        dataset = self._held_out(test_dataset)
        start = time.perf_counter()
        totals, ranks = self.rank(dataset, DEFAULT_KS)
        seconds = time.perf_counter() - start
        metrics = self._named(dataset, totals, ranks, metric_key_prefix)
        metrics[f"{metric_key_prefix}_runtime"] = seconds
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, metrics)
        filter_seen = dataset.data.filters_seen(self.args.filter_seen)
        output = RankingOutput(ranks, self._tokens(dataset), metrics)
        output.report = report(self.model.config.model_type, dataset.data, dataset.split, filter_seen, totals, seconds)
        return output

    def rank(self, dataset: EvalDataset, ks: tuple[int, ...] = EVALUATION_KS) -> tuple[RankingTotals, np.ndarray]:
        """Totals over all targets of a data set and `(M,)` ranks, int64; the work is shared by the processes, all of
        which have to call this."""
        data, split = dataset.data, dataset.split
        totals, kept = RankingTotals(ks, data.vocab_size), Kept(data.num_targets(split))
        index, count = self.data_shard
        with self.compute_loss_context_manager():
            scorer = ModelScorer(self.model, self.model.config.max_position_embeddings, reuse_memory=True)
            add_users(totals, scorer, data, split, data.filters_seen(self.args.filter_seen), (index, count), kept=kept)
            if self.in_step:  # as many forwards as the first process, which has the most
                for _ in range(num_batches(data, split, (0, count)) - num_batches(data, split, (index, count))):
                    scores_of(scorer, [Past(np.array([NUM_SPECIAL]), np.array([0]))])
        if self.args.world_size > 1:  # what a process has not ranked is 0
            totals.load_vector(self._sum(totals.vector()))
            return totals, self._sum(kept.ranks)
        return totals, kept.ranks

    def _sum(self, values: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(values if self.speaks_for_shard else np.zeros_like(values)).to(self.args.device)
        return self.accelerator.reduce(tensor, "sum").cpu().numpy()

    def _named(self, dataset: EvalDataset, totals: RankingTotals, ranks: np.ndarray, prefix: str) -> dict[str, float]:
        metrics = totals.metrics(dataset.data.vocab_size - NUM_SPECIAL)
        if self.compute_metrics is not None:
            metrics |= self.compute_metrics(EvalPrediction(ranks, self._tokens(dataset)))
        return {name if name.startswith(f"{prefix}_") else f"{prefix}_{name}": value for name, value in metrics.items()}

    def _tokens(self, dataset: EvalDataset) -> np.ndarray:
        return target_tokens(dataset.data, dataset.data.targets(dataset.split))

    def _held_out(self, dataset: Any) -> EvalDataset:
        if not isinstance(dataset, EvalDataset):
            raise TypeError(
                f"a trainer on a prepared log ranks its held-out targets, and this is a {type(dataset).__name__}: give "
                'data.eval_dataset("validation") or data.eval_dataset("test").'
            )
        window = self.model.config.max_position_embeddings
        if dataset.window not in (None, window):
            raise ValueError(
                f"the data set has a window of {dataset.window}, the model one of {window}; leave it out: "
                f'data.eval_dataset("{dataset.split}").'
            )
        return dataset
