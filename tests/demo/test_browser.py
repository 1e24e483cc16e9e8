"""The page in a real headless Chromium, as a user: type, click, read. Debian: apt install chromium chromium-driver."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from sr_transformers import Recommender

pytest.importorskip("gradio", reason="needs the extra demo")
pytest.importorskip("PIL", reason="needs pillow")
waiting = pytest.importorskip("selenium.webdriver.support.wait", reason="needs selenium")
exceptions = pytest.importorskip("selenium.common.exceptions", reason="needs selenium")
keys = pytest.importorskip("selenium.webdriver.common.keys", reason="needs selenium").Keys
from screenshots import NARROW, WIDE, chromium, drawn, look  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER) and "SR_BROWSER" not in os.environ,  # where it is set there must be one
        reason="needs chromium and chromedriver on the path",
    ),
]


@pytest.fixture(scope="module")
def url(checkpoints, titles, study, users, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, two = map(str, checkpoints)
    options = [
        "--compare",
        two,
        "--data",
        str(users),
        "--titles",
        str(titles),
        "--study",
        str(study),
        "--port",
        str(port),
    ]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with open(log, "w") as output:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "sr_transformers.cli", "demo", one, *options]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    yield f"http://127.0.0.1:{port}", server, log
    server.terminate()
    server.wait(timeout=30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = chromium(tmp_path_factory.mktemp("profile"))
    look(driver, WIDE)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(browser, url):
    """The loaded page."""
    address, server, log = url

    def answers(_):
        assert server.poll() is None, log.read_text()
        return "Running on local URL" in log.read_text()

    wait(browser, answers, 300)
    browser.get_log("performance")  # what came before is the browser's own
    browser.get(address)
    drawn(browser, 2, 300)
    return browser


def wait(browser, condition, seconds=120):
    return waiting.WebDriverWait(browser, seconds, 0.3, [LookupError, exceptions.StaleElementReferenceException]).until(
        condition
    )


def element(browser, selector):
    found = browser.find_elements("css selector", selector)
    if not found:
        raise LookupError(selector)
    return found[0]


def texts(browser, selector):
    """Texts of all elements that are shown."""
    shown = "[...document.querySelectorAll(arguments[0])].filter(one => one.checkVisibility())"
    return browser.execute_script(f"return {shown}.map(one => one.innerText.trim())", selector)


def per_row(browser, index, what):
    """Of every row of a list of next items what an expression says, `row` is the row."""
    script = f"return [...document.querySelectorAll('#next-{index} .sr-row')].map(row => {what})"
    return browser.execute_script(script)


def items(browser, part):
    """Ids of the items of a list or a trajectory, in order; titles end in the number of theirs."""
    return [f"item {one.split()[-1]}" for one in texts(browser, f"#{part} .sr-title")]


def set_text(browser, selector, text):
    box = element(browser, selector)
    box.send_keys(keys.CONTROL, "a")
    box.send_keys(keys.DELETE)
    box.send_keys(text)
    assert box.get_attribute("value") == text


def ask(browser, history):
    """Types a history and asks by keyboard alone."""
    set_text(browser, "#history textarea", history)
    element(browser, "#history textarea").send_keys(keys.SHIFT, keys.ENTER)


def test_it_opens_with_a_user_and_what_came_next(page):
    (words,) = [one for one in texts(page, "#shown-history .sr-words") if one.startswith("User u")]
    user = int(words.split(":")[0].removeprefix("User u"))
    history = element(page, "#history textarea").get_attribute("value").splitlines()
    assert history == [f"item {user + step}" for step in range(len(history))]
    assert len(texts(page, "#shown-history .sr-card")) == len(history) == (3 if user == 9 else 4)
    assert texts(page, "#next > * > p, #next p")[0].endswith(f"item {user})" if user % 2 == 0 else f"item {user}")
    assert len(items(page, "next-0")) == len(items(page, "next-1")) == 10
    assert len(items(page, "steps-0")) == len(items(page, "steps-1")) == 6


def test_another_user_is_drawn(page):
    first = words = texts(page, "#shown-history .sr-words")
    for _ in range(20):  # one of ten users may come twice
        element(page, "#another").click()
        wait(page, lambda one: texts(one, "#shown-history .sr-words"))
        words = texts(page, "#shown-history .sr-words")
        if words != first:
            break
    assert words[0].startswith("User u")
    assert words != first


def test_nothing_is_fetched_from_elsewhere(page, url):
    messages = [json.loads(one["message"])["message"] for one in page.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 5
    assert [one for one in asked if not one.startswith((url[0], "data:", "blob:", "chrome"))] == []


def test_a_typed_history_gets_what_the_model_says(page, checkpoints):
    ask(page, "item 3\nitem 4")
    wait(page, lambda one: len(texts(one, "#shown-history .sr-card")) == 2)
    found = [Recommender.from_pretrained(one).recommend(["item 3", "item 4"], 10) for one in checkpoints]
    most = max(wanted[0].probability for wanted in found)
    for index, wanted in enumerate(found):
        assert items(page, f"next-{index}") == [one.item for one in wanted]
        percents = [f"{100 * one.probability:.2f} %" for one in wanted]
        assert texts(page, f"#next-{index} .sr-percent") == percents
    share = "row.querySelector('.sr-fill').offsetWidth / row.querySelector('.sr-bar').offsetWidth"
    for index, wanted in enumerate(found):
        assert per_row(page, index, share) == pytest.approx([one.probability / most for one in wanted], abs=0.02)
    assert "of 10 items in both lists" in texts(page, "#next .sr-words")[0]
    assert "came next" not in element(page, "#next").text


def test_what_differs_has_a_colour(page):
    colours = {}
    for index in (0, 1):
        here, there = items(page, f"next-{index}"), items(page, f"next-{1 - index}")
        differs = per_row(page, index, "row.classList.contains('sr-differs')")
        assert differs == [one not in there for one in here]
        of_row = per_row(page, index, "getComputedStyle(row.querySelector('.sr-fill')).backgroundColor")
        for colour, alone in zip(of_row, differs, strict=True):
            colours.setdefault(index if alone else "both", set()).add(colour)
    assert set(colours) == {0, 1, "both"}
    assert all(len(one) == 1 for one in colours.values())
    assert len(set.union(*colours.values())) == 3


def test_seen_items_are_marked_or_left_out(page):
    ask(page, "\n".join(f"item {n}" for n in range(25)))
    wait(page, lambda one: set(items(one, "next-0")) == {f"item {n}" for n in range(25, 30)})
    assert not texts(page, "#next-0 .sr-had")
    element(page, "#exclude-seen input").send_keys(keys.SPACE)
    wait(page, lambda one: len(items(one, "next-0")) == 10)
    seen = [int(one.split()[1]) < 25 for one in items(page, "next-0")]
    assert per_row(page, 0, "row.querySelectorAll('.sr-had').length > 0") == seen
    assert any(seen)
    element(page, "#exclude-seen input").send_keys(keys.SPACE)
    wait(page, lambda one: len(items(one, "next-0")) == 5)


def test_an_item_is_chosen_by_keyboard(page):
    set_text(page, "#history textarea", "item 3")
    element(page, "#choice input").send_keys("Title 8")
    option = wait(page, lambda one: element(one, "#choice [role=option]"))
    assert option.text.strip().endswith("Title 8 (item 8)")
    element(page, "#choice input").send_keys(keys.ENTER)
    element(page, "#add").send_keys(keys.ENTER)
    box = element(page, "#history textarea")
    wait(page, lambda _: box.get_attribute("value") == "item 3\nitem 8")
    wait(page, lambda one: texts(one, "#shown-history .sr-title") == ["item 3", "Title 8"])


def test_errors_stand_below_their_field_and_are_tied_to_it(page):
    element(page, "#clear").click()
    box = element(page, "#history textarea")
    wait(page, lambda _: box.get_attribute("value") == "")
    set_text(page, "#count input", "51")
    element(page, "#recommend").click()
    for field, says in (("history", "The history is empty"), ("count", "whole number from 1 to 50")):
        error = wait(page, lambda one, field=field: element(one, f"#{field}-problem [role=alert]"))
        assert says in error.text
        box = element(page, f"#{field} textarea, #{field} input")
        wait(page, lambda _, box=box: box.get_attribute("aria-invalid") == "true")
        assert box.get_attribute("aria-describedby") == f"{field}-problem"
        assert 0 < error.rect["y"] - (box.rect["y"] + box.rect["height"]) < 60
        assert box.value_of_css_property("outline-style") == "solid"
    set_text(page, "#count input", "7")
    ask(page, "item 3")
    wait(page, lambda one: len(items(one, "next-0")) == 7)
    wait(page, lambda _: box.get_attribute("aria-invalid") == "false")
    assert texts(page, "[role=alert]") == []


def test_everything_that_takes_input_has_a_name(page):
    ask(page, "item 3\nitem 5")
    wait(page, lambda one: len(texts(one, "#shown-history .sr-card")) == 2)
    fields = page.find_elements("css selector", "#page input, #page textarea, #page button")
    names = [one.accessible_name for one in fields if one.is_displayed()]
    assert len(names) >= 9
    assert all(names)
    assert len(set(names)) == len(names)
    for heading in ("History", "Next items", "Trajectory"):
        assert heading in texts(page, "h2")
    assert [one.accessible_name for one in page.find_elements("css selector", "#next section")] == ["one", "two"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_fits_and_can_be_read_wide_and_narrow_light_and_dark(page, url, width, dark):
    look(page, width, dark=dark)
    page.get(url[0])
    drawn(page, 2)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    columns = page.find_elements("css selector", "#next section")
    beside = columns[0].rect["x"] < columns[1].rect["x"]
    assert beside == (width == WIDE)
    ask_box, shown, settings = (element(page, f"#{one}").rect for one in ("ask", "shown", "settings"))
    assert (shown["x"] > ask_box["x"]) == (width == WIDE)
    assert settings["y"] > (ask_box if width == WIDE else shown)["y"] + ask_box["height"] - 40
    paper = luminance(element(page, "body").value_of_css_property("background-color"))
    assert (paper < 0.1) == dark
    for part in (".sr-title", ".sr-small", ".sr-words", ".sr-percent", ".sr-mark", ".sr-only-here", ".sr-model-1 h3"):
        ink = luminance(element(page, f"#shown {part}").value_of_css_property("color"))
        light, deep = max(ink, paper), min(ink, paper)
        assert (light + 0.05) / (deep + 0.05) >= 4.5, (part, ink, paper)  # WCAG 2, AA


def luminance(colour):
    """Relative luminance of WCAG 2 of `rgb(...)` or `rgba(...)`."""
    channels = [float(one) / 255 for one in re.findall(r"[\d.]+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_figures_of_the_study_are_shown(page):
    picture = wait(page, lambda one: element(one, "#figures img"))
    page.execute_script("arguments[0].scrollIntoView()", picture)
    wait(page, lambda _: int(picture.get_attribute("naturalWidth") or 0) == 300)
