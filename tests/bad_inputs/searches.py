"""Searches: what `tune` is given, and the folder that it goes on with."""

from bad_inputs.row import Row, write

TUNE = "tune DATA --output o --budget 1h"


def _tune(id: str, words: str, says: str) -> Row:
    return Row(id, words, f"{TUNE} {words}", says)


ROWS = [
    Row("N400", "too few validation targets", TUNE, "60 validation targets.*below 100 chance decides.*train auto"),
    Row(
        "N401",
        "a log of too few, which is prepared all the same",
        "tune LOG --output o --budget 1h",
        "60 validation targets",
        makes=("o",),
    ),
    Row("N402", "no log", "tune nowhere --output o --budget 1h", "nowhere: no such"),
    Row("N403", "no budget", "tune DATA --output o", "--budget"),
    _tune("N404", "--budget soon", "--budget.*'soon' is no time.*30m"),
    _tune("N405", "--budget 0s", "--budget.*'0s' is no time above 0"),
    _tune("N406", "--budget -3m", "--budget"),
    _tune("N407", "--jobs 0", "--jobs.*at least 1"),
    _tune("N408", "--fix hidden_size", "--fix 'hidden_size': write KEY=VALUE"),
    _tune("N409", "--fix hidden_sise=3", "hidden_sise.*did you mean 'hidden_size'"),
    _tune("N410", "--fix hidden_size=wide", "hidden_size is 'wide'"),
    _tune("N411", "--fix hidden_size=8 hidden_size=16", "hidden_size is given twice"),
    _tune("N412", "--fix seed=3", "it is the option --seed"),
    _tune(
        "N419", "--fix hub_token=hf_abcdefghijklmnopqrst", "--fix: hub_token does not belong into a search.*HF_TOKEN"
    ),
    _tune("N413", "--fix patience=[", "--fix patience"),
    _tune("N414", "--split temporal", "was prepared with the split leave_one_out, not temporal"),
    Row(
        "N415",
        "a folder of something else",
        "tune DATA --output e --budget 1h",
        "e is not empty and holds no search",
        write("e/mine.txt", "mine"),
    ),
    Row("N416", "train: two recipes", "train RECIPE sparse --data DATA --output o", "cannot read 'sparse'"),
    Row("N417", "train: auto, an unknown key", "train auto --data DATA --output o --hidden_sise 3", "did you mean"),
    Row("N418", "train: auto, no data", "train auto --data nowhere --output o", "nowhere is not a prepared folder"),
]
