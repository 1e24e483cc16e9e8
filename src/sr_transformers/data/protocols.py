"""Named protocols: how a paper filters, splits and ranks, as options of `prepare` and a word to evaluation.

Each is what the source's released code does, as far as it can be said in options; `differs` says where it cannot, and
where the source leaves a choice open and we had to guess. An option that the source sets in several ways, data set by
data set, takes any of these values; the first is the default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sr_transformers.data import splits
from sr_transformers.data.cuts import MEASURES
from sr_transformers.data.logs.cleaning import KEEP

ITEM, BASKET, PERIOD = "item", "basket", "period"  # what is to be predicted
TARGETS = (ITEM, BASKET, PERIOD)
ANY = "any"
# The options of `prepare` that change which interactions there are or which are held out, and what they are without a
# protocol.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "split": splits.LEAVE_ONE_OUT,
        "min_interactions": 1,
        "repeats": KEEP,
        **dict.fromkeys(("min_item_interactions", "min_rating", "since", "until")),
        **dict.fromkeys(MEASURES),
        **dict.fromkeys(("min_trajectory_length", "unseen_share", "split_seed")),
    }
)


@dataclass(frozen=True)
class Protocol:
    """One of them.

    Attributes:
        name: of `PROTOCOLS`.
        source: paper, and the code that was read.
        options: for options of `prepare` that are not as without a protocol, the values that the source has, the
            default first; `ANY` for an option that the source leaves to chance.
        filter_seen: whether rankings leave a user's own items out.
        ks: cut-offs of the source's tables.
        target: what is to be predicted.
        differs: what its source does otherwise, or does not say.
    """

    name: str
    source: str
    options: Mapping[str, tuple[Any, ...] | str]
    filter_seen: bool
    ks: tuple[int, ...]
    target: str
    differs: tuple[str, ...]

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options of `DEFAULTS`.

        Args:
            given: those that were given beside the protocol; None: not given.

        Raises:
            ValueError: for one that contradicts the protocol, naming both.
        """
        found = {}
        for name, default in DEFAULTS.items():
            allowed, value = self.options.get(name, (default,)), given.get(name)
            if allowed == ANY:
                found[name] = value
                continue
            found[name] = allowed[0] if value is None else value
            if found[name] not in allowed:
                has = " or ".join(map(str, allowed)) if allowed != (None,) else "not set"
                raise ValueError(
                    f"protocol {self.name!r} and {name} {value!r} contradict each other (--protocol {self.name}, "
                    f"--{name.replace('_', '-')} {value}): in this protocol {name} is {has}. Leave one of the two out."
                )
        return found

    def described(self) -> dict[str, Any]:
        """For the manifest: the name, and what evaluation must do."""
        evaluation = {"filter_seen": self.filter_seen, "ks": list(self.ks), "target": self.target}
        return {"protocol": self.name, "evaluation": evaluation}


PROTOCOLS = {
    one.name: one
    for one in (
        Protocol(
            name="s3rec",
            source="S3-Rec (CIKM 2020, arXiv 2008.07873); code aHuiWang/CIKM2020-S3Rec",
            options={
                "min_interactions": (5,),
                "min_item_interactions": (5,),
                "repeats": (KEEP, "first"),  # Amazon and Yelp; LastFM
                "since": (None, "2019-01-01"),  # Amazon and LastFM; Yelp
                "until": (None, "2019-12-31T00:00:01"),
            },
            filter_seen=True,
            ks=(5, 10, 20),
            target=ITEM,
            differs=(
                "The paper's main table ranks the target among 99 sampled items; this is the second table of its "
                "code, which ranks all items.",
                "Its code sets the scores of seen items to 0, not below all others, so that they may still be "
                "recommended; here they are left out.",
                "Its catalogue has items that occur in held-out interactions only; here these are no candidates, and "
                "such targets count as missed.",
                "Interactions at one moment: the order of the file, as in its stable sort.",
                "LastFM keeps the first row of a user and item in the order of the file; here it is the first in time.",
            ),
        ),
        Protocol(
            name="esasrec",
            source="eSASRec (RecSys 2025), its time-split benchmark; code blondered/transformer_benchmark, RecTools",
            options={
                "split": (splits.TEMPORAL,),
                "min_interactions": (2, 1),  # Kion and BeerAdvocate; MovieLens
                "min_item_interactions": (5, 1),
                "test_days": (60, 14, 7),  # MovieLens-20M and BeerAdvocate; Kion; the default of its code
                "validation_days": (7,),
            },
            filter_seen=True,
            ks=(10,),
            target=PERIOD,
            differs=(
                "Its models are trained anew on all that lies before the test period, but the last interaction of "
                "some users, by which training stops; here the validation days are never trained on.",
                "An item that first occurs in the validation days is new here and left out of the targets; there it "
                "is known.",
                "Its grid search validates on the 7 days before the test period whatever the length of that; so here.",
            ),
        ),
        Protocol(
            name="lsrm",
            source="Scaling Law of Large Sequential Recommendation Models (RecSys 2024, arXiv 2311.11351), its code",
            options={
                "split": (splits.PAPER,),
                "min_interactions": (1, 30),  # MovieLens-20M; Amazon 2018
                "min_trajectory_length": (15, 20),
                "unseen_share": (0.2,),
                "split_seed": ANY,
            },
            filter_seen=False,
            ks=(5, 10, 50),
            target=ITEM,
            differs=(
                "Its code draws a fixed number of unseen users; here each is drawn by a hash of id and seed.",
                "The order of interactions at one moment is undefined there; here it is that of the file.",
            ),
        ),
    )
}


def resolve(name: str | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of `prepare` with a protocol, or without one.

    Args:
        name: of `PROTOCOLS`; None: no protocol.
        given: values of `DEFAULTS` that were asked for; None: not asked for.

    Returns:
        A value for each of `DEFAULTS`, and what the manifest is to say of the protocol.

    Raises:
        ValueError: for an unknown protocol, or as `Protocol.resolve`.
    """
    if name is None:
        return {one: default if given.get(one) is None else given[one] for one, default in DEFAULTS.items()}, {}
    if name not in PROTOCOLS:
        raise ValueError(f"protocol {name!r} is not known; choose from {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name].resolve(given), PROTOCOLS[name].described()
