"""The large view of the page of a run: what a browser draws of an item, and how it is turned and zoomed."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from perception.engine.page import page, pictures
from tests.browser import opened_browser
from tests.inference.browsing import (
    complaints,
    names_of_cells,
    open_page,
    press,
    screenshot,
    set_field,
    wait_for,
    wait_for_frame,
    wait_for_item,
)
from tests.inference.pages import write_run

pytestmark = pytest.mark.xdist_group("page")


@pytest.mark.parametrize("kind", ["masks", "rotated", "labels", "segments"])
def test_the_large_view_draws_what_was_found(tmp_path, kind):
    index = write_run(tmp_path / "out", [f"{number}.png" for number in range(6)], kind, seed=3)
    records = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").open()]
    key = "pixels" if kind == "labels" else "segments" if kind == "segments" else "detections"
    number = max(range(6), key=lambda at: len(records[at][key]))
    with opened_browser(900, 600) as browser:
        browser.get(f"{index.as_uri()}#{number}.png")
        wait_for_item(browser, f"{number}.png")
        place = browser.execute_script(
            "const box = document.querySelector('#panes canvas').getBoundingClientRect();"
            "return [box.left, box.top, box.width, box.height]"
        )
        left, top, width, height = place
        set_field(browser, "opacity", 1)
        shown = screenshot(browser, tmp_path / "shown.png")
        scale = min(width / 160, height / 120)
        x0, y0 = left + (width - 160 * scale) / 2, top + (height - 120 * scale) / 2
        palette = {name: tuple(colour) for name, colour in zip(*_classes(index))}
        hits = 0
        for label, (x, y) in _points(records[number], kind, tmp_path / "out/labels" / f"{number}.png"):
            found = shown.getpixel((int(x0 + x * scale), int(y0 + y * scale)))
            hits += max(abs(a - b) for a, b in zip(found, palette[label])) < 60
        assert hits >= 1
        # Hidden by class, all of it goes.
        browser.execute_script("document.querySelectorAll('#view-classes input').forEach((box) => box.click())")
        bare = screenshot(browser, tmp_path / "bare.png")
        with Image.open(tmp_path / "out" / pictures.view_file(f"{number}.png")) as view:
            for x, y in ((5, 5), (80, 60), (150, 110), (40, 90)):
                expected = view.convert("RGB").getpixel((x, y))
                found = bare.getpixel((int(x0 + (x + 0.5) * scale), int(y0 + (y + 0.5) * scale)))
                assert max(abs(a - b) for a, b in zip(found, expected)) < 40
        assert complaints(browser) == []


def _classes(index):
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', index.read_text())[1])
    return facts["classes"], facts["colours"]


def _points(record, kind, label_file):
    """Classes, and points in the image that have to be of their colour (unless something lies over them)."""
    if kind == "labels":
        values = np.asarray(Image.open(label_file))
        for label, name in enumerate(("ship", "plane", "car", "bridge")):
            rows, columns = np.nonzero(values == label)
            if len(rows):
                middle = len(rows) // 2
                yield name, (columns[middle] + 0.5, rows[middle] + 0.5)
    for one in record.get("detections", record.get("segments", ())):
        x, y, width, height = one["bbox"]
        if kind == "rotated":
            corners = one["segmentation"][0]
            yield one["label"], ((corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2)
        else:
            yield one["label"], (x + width / 2, y + height / 2)


def test_space_is_turned_and_sequences_are_filtered(tmp_path):
    names = [f"{'one' if number < 6 else 'two'}/{number:02d}.bin" for number in range(9)]
    index = write_run(tmp_path / "out", names, "clouds")
    with opened_browser(1000, 700, dark=True) as browser:
        open_page(browser, index)
        set_field(browser, "sequence", 1, "change")
        assert names_of_cells(browser) == names[6:]
        press(browser, "HOME", "ENTER")
        wait_for_item(browser, names[6])
        before = screenshot(browser, tmp_path / "before.png")
        car, walker = _classes(index)[1]
        assert _has(before, car)
        assert _has(before, walker)
        assert browser.find_element("css selector", ".caption").text == "space; the corner at the sensor is 2 m long"
        from selenium.webdriver import ActionChains

        canvas = browser.find_element("css selector", "#panes canvas")
        ActionChains(browser).drag_and_drop_by_offset(canvas, 120, 30).perform()
        assert list(screenshot(browser, tmp_path / "after.png").getdata()) != list(before.getdata())
        browser.execute_script("document.querySelectorAll('#view-classes input')[0].click()")
        hidden = screenshot(browser, tmp_path / "hidden.png").crop((0, 50, 720, 700))
        assert not _has(hidden, car)
        assert _has(hidden, walker)
        assert complaints(browser) == []


def test_matches_are_told_the_least_similar_first(tmp_path):
    names = [f"q{number},50.0,8.0,.jpg" for number in range(5)]
    index = write_run(tmp_path / "out", names, "matches", skipped={"bad.jpg": "damaged"})
    records = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").open()]
    similarities = [record["matches"][0]["similarity"] for record in records]
    with opened_browser() as browser:
        # As it is typed: commas, which an address that is copied from the page has in another form.
        browser.get(index.as_uri() + "#" + names[0])
        wait_for_item(browser, names[0])
        assert browser.execute_script("return document.getElementById('view-place').textContent") == (
            f"{1 + sorted(similarities).index(similarities[0])} of 6"
        )
        summary = browser.find_element("id", "view-summary").text
        assert summary == (
            f"similarity of the best tile: {similarities[0]:.3f}; found at 50.000100, 8.000100, "
            f"{records[0]['truth']['error_m']:.1f} m from its own place"
        )
        rows = [row.text.split() for row in browser.find_elements("css selector", "#view-table tr")]
        assert rows[0] == ["1", "folder/tile_0.png", f"{similarities[0]:.3f}", "+", "0.250"]
        assert rows[9] == ["10", "folder/tile_9.png", f"{records[0]['matches'][9]['similarity']:.3f}"]
        heights = browser.execute_script(
            "return [...document.querySelectorAll('#view-table td:first-child')].map((cell) => cell.scrollHeight)"
        )
        assert max(heights) < 40  # one or two lines of a name, and none of a number's digits below each other
        hidden = "return ['view-classes-part', 'view-score-part', 'opacity-part'].map((id) => $(id).hidden)"
        assert browser.execute_script(hidden.replace("$", "((id) => document.getElementById(id))")) == [True] * 3
        before = screenshot(browser, tmp_path / "before.png")
        _wheel(browser)
        assert list(screenshot(browser, tmp_path / "after.png").getdata()) != list(before.getdata())
        press(browser, "ESCAPE")
        wait_for(browser, "!document.getElementById('view').open")
        cells = browser.execute_script(
            "return [...document.querySelectorAll('.cell:not([hidden])')]"
            ".sort((a, b) => new DOMMatrix(a.style.transform).e - new DOMMatrix(b.style.transform).e)"
            ".sort((a, b) => new DOMMatrix(a.style.transform).f - new DOMMatrix(b.style.transform).f)"
            ".map((cell) => cell.querySelector('.found').textContent)"
        )
        assert cells == [*(f"{one:.3f}" for one in sorted(similarities)), "skipped"]
        # Numbers of objects mean nothing here.
        shown = browser.execute_script(
            "return [...document.querySelectorAll('#aside section:not([hidden]) h2')].map((title) => title.textContent)"
        )
        assert shown == ["Show", "Similarity of the best tile at least 0"]
        assert "amount" not in browser.execute_script(
            "return [...document.getElementById('order').options].map((option) => option.value)"
        )
        bound = np.floor(20 * sorted(similarities)[2]) / 20
        set_field(browser, "score", bound)
        assert len(names_of_cells(browser)) == sum(one >= bound for one in similarities)
        assert complaints(browser) == []


def test_matches_without_pictures_and_those_that_were_not_copied(tmp_path):
    bare = write_run(tmp_path / "bare", ["q.jpg"], "matches", drawn=False, page=False)
    lost = write_run(tmp_path / "lost", ["q.jpg"], "matches")
    (lost.parent / "images" / "q.jpg").unlink()
    with opened_browser() as browser:
        for index, words in ((bare, "no picture"), (lost, "images/q.jpg is missing")):
            browser.get(index.as_uri() + "#q.jpg")
            wait_for_item(browser, "q.jpg")
            assert words in browser.find_element("css selector", "#panes .words").text
            assert len(browser.find_elements("css selector", "#view-table tr")) == 12


def test_levels_of_pyramids_are_listed(tmp_path):
    levels = [{"factor": 1, "windows": 72, "detections": 199}, {"factor": 4, "windows": 1, "detections": 3}]
    record = {"file_name": "a.png", "width": 30, "height": 20, "detections": [], "levels": levels}
    page.write_page(tmp_path, page.Facts("t", "image", "images"), [page.Item("a.png", record)], {})
    with opened_browser() as browser:
        browser.get((tmp_path / "index.html").as_uri() + "#a.png")
        wait_for_item(browser, "a.png")
        rows = [row.text for row in browser.find_elements("css selector", "#view-table tr")]
        assert rows == ["image 72 windows 199 found", "1/4 1 window 3 found"]


def _wheel(browser):
    browser.execute_script(
        "document.querySelector('#panes canvas').dispatchEvent("
        "new WheelEvent('wheel', {deltaY: -400, clientX: 300, clientY: 300, cancelable: true}))"
    )
    wait_for_frame(browser)


def test_two_fingers_zoom_and_one_moves(tmp_path):
    pixels = np.full((300, 300, 3), 90, np.uint8)
    pixels[130:170, 130:170] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    # Done before there was a page: there is nothing but the picture that was drawn.
    record = {"file_name": "a", "width": 300, "height": 300, "detections": []}
    page.write_page(tmp_path, page.Facts("t", "u", "us"), [page.Item("a", record, picture="a.png")], {})
    with opened_browser(390, 800) as browser:
        browser.get((tmp_path / "index.html").as_uri() + "#a")
        wait_for_item(browser, "a")
        left, top, right, bottom = _square(browser, tmp_path)
        x, y = (left + right) / 2, (top + bottom) / 2
        _touch(browser, *([(x - apart, y), (x + apart, y)] for apart in (40, 60, 80)))
        large = _square(browser, tmp_path)
        assert large[2] - large[0] == pytest.approx(2 * (right - left), abs=3)
        assert (large[0] + large[2]) / 2 == pytest.approx(x, abs=2)
        assert (large[1] + large[3]) / 2 == pytest.approx(y, abs=2)
        _touch(browser, [(x, y)], [(x + 30, y + 10)], [(x + 50, y + 20)])
        assert _square(browser, tmp_path) == pytest.approx(np.add(large, (50, 20, 50, 20)), abs=1)


def _square(browser, folder):
    """The box around what is red."""
    red, green, _ = np.moveaxis(np.asarray(screenshot(browser, folder / "shot.png")).astype(int), 2, 0)
    rows, columns = np.nonzero((red > 200) & (green < 60))
    return columns.min(), rows.min(), columns.max(), rows.max()


def _touch(browser, *steps):
    """Fingers at places, step by step, and then off the screen."""
    for number, places in enumerate((*steps, [])):
        kind = "touchStart" if not number else "touchMove" if places else "touchEnd"
        points = [{"x": float(x), "y": float(y), "id": finger} for finger, (x, y) in enumerate(places)]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    wait_for_frame(browser)


def _has(picture, colour):
    return any(max(abs(a - b) for a, b in zip(pixel, colour)) < 12 for _, pixel in picture.getcolors(10**7))
