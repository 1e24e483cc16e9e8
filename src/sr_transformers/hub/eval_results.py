"""`.eval_results/next_item.yaml`: the results of a run in the form that pages and leaderboards of the Hub read."""

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from sr_transformers.evaluation.protocol import protocol_line
from sr_transformers.hub.card_tables import HEADLINES, identifier
from sr_transformers.records import RunRecord

FOLDER = ".eval_results"
FILE = f"{FOLDER}/next_item.yaml"


def eval_results(record: RunRecord, dataset: str | None) -> str | None:
    """The file's text; None where the data set is not on the Hub, for every result names one there.

    Args:
        dataset: its id there, "owner/name".
    """
    if dataset is None or "/" not in dataset:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(_entries(record, dataset)), sort_keys=False)


def _entries(record: RunRecord, dataset: str) -> list[EvalResultEntry]:
    report = record.reports[0]
    return [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=identifier(metric),
            value=report["metrics"][metric],
            date=record.started,
            notes=protocol_line(report),
        )
        for metric in HEADLINES
        if metric in report["metrics"]
    ]
