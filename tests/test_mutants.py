import mutants
import pytest


@pytest.fixture
def report():
    return mutants.REPORT.read_text()


def test_the_quick_tests_notice_at_least_85_percent_of_the_faults_in_every_module(report):
    counts = mutants.read_counts(report)
    assert tuple(counts) == mutants.MODULES
    for module, (killed, _, total, _) in counts.items():
        assert total > 50, module
        assert killed >= mutants.LEAST * total, module


def test_every_fault_that_is_not_noticed_has_a_reason(report):
    assert mutants.UNEXPLAINED not in report
    reasons, counts = mutants.read_reasons(report), mutants.read_counts(report)
    for module, (killed, _, total, _) in counts.items():
        # Two faults of one function whose lines read alike stand there once.
        assert (killed < total) == bool(reasons.get(module)), module
        assert len(reasons.get(module, {})) <= total - killed, module


def test_the_report_is_read_as_it_is_written(report):
    reasons = {
        "data/packing": {"pack_rows\n- a = 1\n+ a = 2": "Equal: `a` is *not* read.", "pack_rows\n- b\n+ c": "Other."},
        "scaling/laws": {"Law.bind\n- d = `|`\n+ d = {}": "Other.", "f\n- x\n- y\n+ z": "Other."},
    }
    counts = {"data/packing": (7, 2, 9, "0a1b2c3d4e"), "scaling/laws": (3, 0, 5, "ffffffffff")}
    text = mutants.write(counts, reasons)
    assert mutants.read_reasons(text) == reasons
    assert mutants.read_counts(text) == counts
    assert "| data/packing | tests/data/test_packing.py | 9 | 7 | 2 | 77.8 % | 0a1b2c3d4e |" in text
    assert mutants.write(mutants.read_counts(report), mutants.read_reasons(report)) == report


def test_a_module_that_changed_since_is_dated():
    now = mutants.digest("data/packing")
    assert mutants.dated(mutants.write({"data/packing": (7, 2, 9, now), "data/splits": (3, 0, 5, now)}, {})) == [
        "data/splits"
    ]


def test_every_module_has_a_test_file_of_its_own():
    for module in mutants.MODULES:
        assert all((mutants.ROOT / path).is_file() for path in mutants.test_files(module))
