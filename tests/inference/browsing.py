"""What tests do with the page of a run in a browser."""

import time

from PIL import Image


def wait_for(browser, script, *arguments, seconds=120):
    """The value of an expression as soon as it is true."""
    until = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {script}", *arguments)):
        assert time.monotonic() < until, f"never true: {script}"
        time.sleep(0.05)
    return value


def press(browser, *keys):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        ActionChains(browser).send_keys(getattr(Keys, key, key)).perform()


def open_page(browser, index):
    browser.get(index.as_uri())
    wait_for(browser, "document.querySelectorAll('.cell:not([hidden])').length")


def names_of_cells(browser):
    """Names of the cells, in the order of the page."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.cell:not([hidden])')]"
        ".sort((a, b) => a.dataset.index - b.dataset.index).map((cell) => cell.querySelector('bdi').textContent)"
    )


def complaints(browser):
    """What the browser's console says of the page."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def wait_for_item(browser, name):
    """Waits until the large view shows an item."""
    wait_for(browser, "document.getElementById('view').dataset.shown !== undefined")
    wait_for(browser, "document.getElementById('view-title').textContent === arguments[0]", name)


def set_field(browser, name, value, event="input"):
    browser.execute_script(
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event(arguments[2]))",
        name, str(value), event,
    )  # fmt: skip


def screenshot(browser, path):
    browser.save_screenshot(str(path))
    with Image.open(path) as picture:
        return picture.convert("RGB")


def wait_for_frame(browser):
    """Until what was changed is drawn: pictures are taken of that."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
