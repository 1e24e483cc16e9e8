"""A log for trainings on several processes."""

import pytest

from sr_transformers.data.logs import synthetic
from sr_transformers.data.prepare import prepare


@pytest.fixture(scope="module")
def odd_log(tmp_path_factory):
    """201 users: of two processes that rank 50 at a time, one has three batches and the other two."""
    log = synthetic.generate(num_users=201, num_items=31, num_successors=3, mean_length=10)
    data = prepare(log, tmp_path_factory.mktemp("odd") / "data")
    assert (data.num_targets("validation"), data.num_targets("test")) == (201, 201)
    return data
