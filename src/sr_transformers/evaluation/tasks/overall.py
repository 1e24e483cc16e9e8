"""All test targets in one group: the numbers that the other tasks cut into pieces."""

from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.tasks.ranking_pass import TEST, test_pass
from sr_transformers.evaluation.tasks.task import Group, Plan, TaskOptions


def plan(data: PreparedData, options: TaskOptions) -> Plan:
    """Applies to every prepared log."""
    return Plan(
        "The test target of every user, ranked among all items.",
        (test_pass(data, options),),
        (Group("all targets", TEST, TEST),),
        options.headlines,
    )
