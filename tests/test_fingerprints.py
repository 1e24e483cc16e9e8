"""Fingerprints of protocols: what moves a number moves them, names do not, and different ones do not mix."""

import pytest

from sr_transformers.fingerprints import differing, refuse_mixed, with_fingerprint

PROTOCOL = {
    "data": "a.csv",
    "protocol": None,
    "split": "temporal",
    "split_parameters": {"test_from": 9},
    "part": "test",
}


def fingerprint(**changes):
    return with_fingerprint({**PROTOCOL, **changes})["fingerprint"]


def test_the_fingerprint_stays_the_same_from_release_to_release():
    assert fingerprint() == "c87bea5881b9"


def test_it_depends_on_all_that_moves_a_number_and_on_no_name_or_order():
    assert fingerprint() == fingerprint(data="b.csv") == fingerprint(protocol="s3rec")
    changes = (
        {"part": "validation"},
        {"split": "paper"},
        {"split_parameters": {"test_from": 8}},
        {"filter_seen": True},
    )
    assert len({fingerprint(), *(fingerprint(**change) for change in changes)}) == 5
    backwards = with_fingerprint(dict(reversed(with_fingerprint(PROTOCOL).items())))
    assert backwards["fingerprint"] == fingerprint()


def test_what_differs_is_named():
    one, other = with_fingerprint(PROTOCOL), with_fingerprint({**PROTOCOL, "part": "validation", "data": "b.csv"})
    assert differing(one, other) == ["part is 'test' and 'validation'"]
    assert differing(one, with_fingerprint({**PROTOCOL, "data": "b.csv"})) == []
    assert differing(one, PROTOCOL) == []  # the same fields, from before there were fingerprints
    older = {name: value for name, value in PROTOCOL.items() if name != "split_parameters"}
    assert differing(one, older) == ['split_parameters is {"test_from": 9} and not recorded']
    assert differing({"data": "a.csv"}, {"data": "b.csv"}) == ["data is 'a.csv' and 'b.csv'"]


def test_numbers_of_different_protocols_do_not_stand_in_one_table():
    one, other = with_fingerprint(PROTOCOL), with_fingerprint({**PROTOCOL, "part": "validation"})
    refuse_mixed([])
    refuse_mixed([("markov", one), ("mix", one)])
    with pytest.raises(ValueError, match=r"'markov' and 'lsrm' have different protocols, .*: part is 'test' and"):
        refuse_mixed([("markov", one), ("mix", one), ("lsrm", other)])
