import time

import pytest
from made_searches import SMALL

from sr_transformers.tuning.budget import Plan, Probe
from sr_transformers.tuning.trials import Terms


@pytest.fixture
def terms(markov_prepared, tmp_path):
    """Of a search with a minute left, in which all but learning rate and dropout is fixed."""

    def make(seconds=60.0, plan=None, **fixed):
        now = time.time()
        probe = Probe(step=0.01, steps=10, validation=0.05, start=0.1, end=0.5, flops=1e4, epochs=2.0)
        settings = {**SMALL, **fixed}
        plan = plan or Plan(1.0, 300, 0.0)
        return Terms(tmp_path, markov_prepared.path, "sparse", settings, 0, plan, probe, now, now + seconds)

    return make
