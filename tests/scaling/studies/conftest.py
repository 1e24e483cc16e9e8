import pytest
from made_studies import SHAPES, add_run

from sr_transformers.scaling.studies.analysis import analyse


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory):
    """Seven sizes on three fractions, two seeds; a shape, a variant, and one run for longer."""
    folder = tmp_path_factory.mktemp("study") / "shop"
    folder.mkdir()
    for size in list(SHAPES)[:7]:
        for fraction in (0.1, 0.3, 1.0):
            for seed in (1, 2):
                add_run(folder, size, fraction, seed=seed)
    add_run(folder, "98k-deep", block="shape", in_law=False, extra=0.05)
    for seed in (1, 2):
        variant = {"settings": {"residual_dropout": 0.0}, "in_law": False, "extra": -0.1}
        add_run(folder, "3k", seed=seed, block="no-dropout", **variant)
    add_run(folder, "49k", 0.1, epochs=10.0, block="repetition")
    (folder / "study.yaml").write_text("name: shop\n")
    return folder


@pytest.fixture(scope="session")
def found(study_folder):
    """What an analysis finds in it."""
    return analyse(study_folder, draws=20)
