"""The page in a real headless Chromium, as a user: type, click, read. Debian: apt install chromium chromium-driver."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

pytest.importorskip("gradio", reason="needs the extra demo")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
waiting = pytest.importorskip("selenium.webdriver.support.wait", reason="needs selenium")
keys = pytest.importorskip("selenium.webdriver.common.keys", reason="needs selenium").Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER) and "SR_BROWSER" not in os.environ,  # where it is set there must be one
        reason="needs chromium and chromedriver on the path",
    ),
]


@pytest.fixture(scope="module")
def url(checkpoints, titles, study, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, two = map(str, checkpoints)
    options = ["--compare", two, "--titles", str(titles), "--study", str(study), "--port", str(port)]
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
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1280,1500",
                     f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
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
    browser.get(address)
    wait(browser, lambda one: element(one, "#history textarea"))
    return browser


def wait(browser, condition, seconds=120):
    return waiting.WebDriverWait(browser, seconds, 0.3, [LookupError]).until(condition)


def element(browser, selector):
    found = browser.find_elements("css selector", selector)
    if not found:
        raise LookupError(selector)
    return found[0]


def rows(browser, name):
    """Rows of a table as the page shows them."""
    lines = element(browser, f"#{name}").text.splitlines()
    cells = lines[lines.index("probability") + 1 :]
    shown, row = [], []
    for cell in cells:
        row.append(cell)
        if cell.endswith(" %"):
            shown.append(row)
            row = []
    return shown


def type_history(browser, text):
    box = element(browser, "#history textarea")
    box.send_keys(keys.CONTROL, "a")
    box.send_keys(keys.DELETE)
    box.send_keys(text)
    assert box.get_attribute("value") == text


def open_tab(browser, name):
    next(tab for tab in browser.find_elements("css selector", "button[role=tab]") if tab.text == name).click()


def test_a_typed_history_gets_what_the_model_says(page, checkpoints, tmp_path):
    from sr_transformers import Recommender

    type_history(page, "item 3\nitem 4")
    element(page, "#recommend").click()
    wait(page, lambda one: len(rows(one, "next-0")) == 10 and len(rows(one, "next-1")) == 10)
    for index, folder in enumerate(checkpoints):
        wanted = Recommender.from_pretrained(folder).recommend(["item 3", "item 4"], 10)
        shown = rows(page, f"next-{index}")
        assert [row[1] for row in shown] == [one.item for one in wanted]
        assert [row[-1] for row in shown] == [f"{100 * one.probability:.2f} %" for one in wanted]
    assert "of 10 items in both lists" in element(page, "#message").text
    assert page.save_screenshot(str(tmp_path / "page.png"))
    assert (tmp_path / "page.png").stat().st_size > 20_000  # not an empty page


def test_seen_items_are_switched_on_and_off(page):
    history = "\n".join(f"item {n}" for n in range(25))
    type_history(page, history)
    element(page, "#recommend").click()
    wait(page, lambda one: {row[1] for row in rows(one, "next-0")} == {f"item {n}" for n in range(25, 30)})
    element(page, "#exclude-seen input").click()
    element(page, "#recommend").click()
    wait(page, lambda one: len(rows(one, "next-0")) == 10)
    element(page, "#exclude-seen input").click()


def test_an_item_is_chosen_from_the_list(page):
    type_history(page, "item 3")
    box = element(page, "#choice input")
    box.click()
    box.send_keys("Title 8")
    option = wait(page, lambda one: element(one, "#choice [role=option]"))
    assert option.text.strip().endswith("Title 8 (item 8)")
    option.click()
    element(page, "#add").click()
    box = element(page, "#history textarea")
    wait(page, lambda _: box.get_attribute("value") == "item 3\nitem 8")
    element(page, "#clear").click()
    wait(page, lambda _: box.get_attribute("value") == "")


def test_a_trajectory_is_followed(page):
    type_history(page, "item 3")
    open_tab(page, "Trajectory")
    wait(page, lambda one: element(one, "#follow").is_displayed())
    element(page, "#follow").click()
    wait(page, lambda one: len(rows(one, "steps-0")) == 10)
    assert [row[0] for row in rows(page, "steps-0")] == [str(step) for step in range(1, 11)]


def test_figures_of_the_study_are_shown(page):
    open_tab(page, "Study")
    picture = wait(page, lambda one: element(one, "#figures img"))
    wait(page, lambda _: int(picture.get_attribute("naturalWidth") or 0) == 300)
