"""make screenshots: the pictures of docs/page.md, of a page over two small models of real grocery baskets.

Prepares the baskets, trains three epochs of the smallest LSRM of the paper with history and without, and looks at the
page with Chromium (Debian: apt install chromium chromium-driver), wide and narrow, light and dark. Everything but the
pictures is below runs/screenshots, and what is there already is used again. A few minutes on two cores.
"""

import base64
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from sr_transformers import PreparedData, Recipe, prepare, train
from sr_transformers.data.logs.journey import journey_titles
from sr_transformers.demo.app import build_app, serve
from sr_transformers.training.progress import bars_on_terminals_only

ROOT = Path(__file__).parent.parent.parent
WORK = Path("runs/screenshots")
IMAGES = ROOT / "docs" / "images"
WIDE, NARROW = 1300, 400
SEED = 7  # of the users that are shown
LONGEST = {WIDE: 1600, NARROW: 2400}  # pixels of a picture's height; what is below is cut off


def chromium(profile: str | Path) -> webdriver.Chrome:
    """A headless Chromium with a profile of its own, which notes every request (`asked_for`)."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def look(browser: webdriver.Chrome, width: int, height: int = 1500, dark: bool = False) -> None:
    """Makes the window so wide and high, and asks for light or dark colours."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferred = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preferred]})


def drawn(browser: webdriver.Chrome, models: int, seconds: int = 120) -> None:
    """Waits until the lists and trajectories of so many models are there."""
    count = "return document.querySelectorAll('#next .sr-list li:first-child, #steps .sr-card:first-child').length"
    WebDriverWait(browser, seconds, 0.3).until(lambda _: browser.execute_script(count) >= 2 * models)


def picture(browser: webdriver.Chrome, longest: int) -> bytes:
    """The whole page from its top as a small PNG, at most so many pixels high."""
    width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, longest), "scale": 1}
    found = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    image = Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("RGB")
    small = io.BytesIO()
    image.quantize(96).save(small, "PNG", optimize=True)
    return small.getvalue()


def models() -> tuple[Path, Path, Path, Path]:
    """Folders of the prepared log, of a model with history and of one without, and the file of titles."""
    data, titles = WORK / "data", WORK / "titles.csv"
    if not data.exists():
        prepare("complete-journey", data, min_interactions=200)
        journey_titles().write_csv(titles)
    folders = WORK / "98k-history", WORK / "98k"
    for folder, history in zip(folders, (["recency", "bigrams", "items"], []), strict=True):
        if not (folder / "run.json").exists():
            settings = {"num_train_epochs": 3, "learning_rate": 4e-3, "switch_optimizer": False, "history": history}
            train(Recipe.load("lsrm/98k", settings), PreparedData(data), folder)
    return data, *folders, titles


def main() -> None:
    """Writes the pictures."""
    bars_on_terminals_only()
    data, ours, other, titles = models()
    user, generated = {"titles": titles, "data": data, "seed": SEED}, {"titles": titles, "seed": SEED}
    pictures = (  # name, checkpoints, how the page is built, width, dark
        ("page-user", (ours,), user, WIDE, False),
        ("page-user-narrow", (ours,), user, NARROW, False),
        ("page-two", (ours, other), user, WIDE, True),
        ("page-generated", (other,), generated, WIDE, False),
    )
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        browser = chromium(profile)
        try:
            for name, checkpoints, how, width, dark in pictures:
                app = build_app(*checkpoints, **how)
                _, address, _ = serve(app, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
                look(browser, width, dark=dark)
                browser.get(address)
                drawn(browser, len(checkpoints))
                file = IMAGES / f"{name}.png"
                file.write_bytes(picture(browser, LONGEST[width]))
                print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")
                app.close()
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
