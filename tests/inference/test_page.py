"""The page of a run: its bytes, and what a real browser makes of it, opened from the disk."""

import hashlib
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perception.engine.page import page, pictures
from tests.browser import opened_browser
from tests.inference.pages import write_run

pytestmark = pytest.mark.xdist_group("page")

# What names may hold on Linux. The last one is no text: bytes that are not UTF-8.
ODD = (
    "a#1.png", "b%28.png", "c d.png", "e&f=?.png", "g'\"<h>.png", "</script><b>.png", "ünï–😀.png", "back\\slash.png",
    "a folder #2/100%/x.png", "a:b.png", "latin\udce9.png",
)  # fmt: skip


def _files(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _wait(browser, script, *arguments, seconds=120):
    """The value of an expression as soon as it is true."""
    until = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {script}", *arguments)):
        assert time.monotonic() < until, f"never true: {script}"
        time.sleep(0.05)
    return value


def _press(browser, *keys):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        ActionChains(browser).send_keys(getattr(Keys, key, key)).perform()


def _open(browser, index):
    browser.get(index.as_uri())
    _wait(browser, "document.querySelectorAll('.cell:not([hidden])').length")


def _cells(browser):
    """Names of the cells, in the order of the page."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.cell:not([hidden])')]"
        ".sort((a, b) => a.dataset.index - b.dataset.index).map((cell) => cell.querySelector('bdi').textContent)"
    )


def _complaints(browser):
    """What the browser's console says of the page."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def _shown(browser, name):
    """Waits until the large view shows an item."""
    _wait(browser, "document.getElementById('view').dataset.shown !== undefined")
    _wait(browser, "document.getElementById('view-title').textContent === arguments[0]", name)


def test_the_same_results_give_the_same_bytes_whenever_they_were_made(tmp_path):
    names = [f"{number}.png" for number in range(8)]
    kinds = ("masks", "labels", "rotated", "segments")
    write_run(tmp_path / "whole" / "out", names, kinds)
    expected = _files(tmp_path / "whole" / "out")
    assert {"index.html", "page/records/00000.js"} <= set(expected)
    # An earlier run that got as far as five, whose page was written then.
    out = tmp_path / "halves" / "out"
    write_run(out, names, kinds)
    lines = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    (out / "predictions.jsonl").write_text("".join(lines[:5]))
    (out / "index.html").write_text("of five")
    write_run(out, names, kinds)
    assert _files(out) == expected
    # More files of records than there are now, as of an earlier page.
    (out / "page/records/00007.js").write_text("")
    write_run(out, names, kinds)
    assert _files(out) == expected


def test_files_of_records_are_small_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_CHUNK", 2000)
    items = [page.Item(f"{number}", {"file_name": f"{number}", "filling": "x" * 90 * number}) for number in range(30)]
    page.write_page(tmp_path, page.Facts("t", "u", "us"), items, {})
    firsts = json.loads(re.search(r'id="facts">(.*?)</script>', (tmp_path / "index.html").read_text())[1])["chunks"]
    files = sorted((tmp_path / "page/records").iterdir())
    assert len(files) == len(firsts) > 5
    for first, file in zip(firsts, files):
        records = json.loads(file.read_text().partition(", ")[2].rstrip(")\n"))
        assert [record["file_name"] for record in records] == [str(first + k) for k in range(len(records))]
        assert len(records) == 1 or file.stat().st_size < 2300


def test_a_page_ends_where_a_browser_would(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "LIMIT", 5)
    items = [page.Item(str(number), {"file_name": str(number)}) for number in range(7)]
    page.write_page(tmp_path, page.Facts("t", "u", "us"), items, {"skipped": "damaged"})
    text = (tmp_path / "index.html").read_text()
    assert '"left_out":3' in text
    assert text.count('["') >= 5
    assert '["5"' not in text


def test_thumbnails_of_large_pictures_are_small(tmp_path):
    Image.new("RGB", (13_500, 200), (9, 99, 199)).save(tmp_path / "wide.jpg")
    pictures.write_thumbnail(tmp_path, "wide", tmp_path / "wide.jpg")
    with Image.open(tmp_path / pictures.thumbnail_file("wide")) as small:
        assert small.size == (320, 5)
        assert small.getpixel((100, 2))[2] > 180


def test_the_page_speaks_to_no_one(tmp_path):
    index = write_run(tmp_path / "out", ["0.png"], "masks")
    text = index.read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?https?:""", text)
    assert "fetch(" not in text
    assert "import(" not in text
    assert "XMLHttpRequest" not in text


def test_odd_names_are_found_shown_and_linked(tmp_path):
    names = [name for name in ODD if _can_be_made(tmp_path, name)]
    index = write_run(
        tmp_path / "out #1 100%" / "out", names, ("masks", "labels"), skipped={"z</script>'\".png": "<b>no"}
    )
    with opened_browser() as browser:
        _open(browser, index)
        texts = _cells(browser)
        assert len(texts) == len(names) + 1
        assert texts[:-1] == [re.sub("[\udc80-\udcff]", "\ufffd", name) for name in names]
        assert texts[-1] == "z</script>'\".png"
        for number, text in enumerate(texts[:-1]):
            browser.execute_script("document.querySelector(`.cell[data-index='${arguments[0]}']`).click()", number)
            _shown(browser, text)
            assert _wait(browser, "document.querySelector('#panes canvas')")
            links = browser.execute_script(
                "return [...document.querySelectorAll('#links a')].map((link) => [link.textContent, link.href])"
            )
            made = [href for word, href in links if word not in ("the file itself", "link to this record")]
            assert made
            for href in made:
                assert _path_of(href).is_file(), href
            browser.execute_script("document.getElementById('close').click()")
        assert browser.execute_script("return document.querySelectorAll('b').length") == 0
        assert _complaints(browser) == []


def _can_be_made(folder, name):
    try:
        (folder / "try").mkdir(exist_ok=True)
        (folder / "try" / name.replace("/", "_")).touch()
    except OSError:
        return False
    return True


def _path_of(url):
    from urllib.parse import unquote_to_bytes, urlsplit

    return Path(os.fsdecode(unquote_to_bytes(urlsplit(url).path)))


def test_an_item_opened_right_after_another_was_closed_stays_open(tmp_path):
    index = write_run(tmp_path / "out", ["a.png", "b.png"], "masks")
    with opened_browser() as browser:
        _open(browser, index)
        # In one task of the browser, so that no event comes in between.
        browser.execute_script(
            "const [a, b] = document.querySelectorAll('.cell:not([hidden])');"
            "a.click(); document.getElementById('close').click(); b.click();"
        )
        _shown(browser, "b.png")
        time.sleep(0.3)
        assert browser.execute_script("return document.getElementById('view').open")
        _shown(browser, "b.png")
        _press(browser, "ESCAPE")
        _wait(browser, "document.getElementById('view').dataset.shown === undefined && location.hash === ''")


def test_keys_and_filters(tmp_path):
    names = [f"{'day' if number % 2 else 'night'}/{number:03d}.png" for number in range(60)]
    index = write_run(
        tmp_path / "out", names, ("masks", "rotated"), skipped={"bad.png": "damaged", "worse.png": "empty"}
    )
    records = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").open()]
    with opened_browser() as browser:
        _open(browser, index)
        count = "document.getElementById('count').textContent"
        assert browser.execute_script(f"return {count}") == "62 images"
        _press(browser, "/", "d", "a", "y")
        assert browser.execute_script(f"return {count}") == "30 of 62 images"
        assert browser.execute_script("return document.activeElement.id") == "search"
        _press(browser, "ESCAPE")
        assert browser.execute_script("return document.activeElement.id") == "grid"
        browser.execute_script("document.getElementById('clear').click()")
        assert browser.execute_script(f"return {count}") == "62 images"
        # Classes, and how many of them.
        browser.execute_script("document.querySelectorAll('#classes input')[0].click()")
        wanted = [r for r in records if any(one["label"] == "ship" for one in r["detections"])]
        assert browser.execute_script(f"return {count}") == f"{len(wanted)} of 62 images"
        _set(browser, "least", 2)
        wanted = [r for r in records if sum(one["label"] == "ship" for one in r["detections"]) >= 2]
        assert 0 < len(wanted) < 30
        assert browser.execute_script(f"return {count}") == f"{len(wanted)} of 62 images"
        _set(browser, "least", "")
        _set(browser, "score", 0.8)
        wanted = [r for r in records if any(one["label"] == "ship" and one["score"] >= 0.8 for one in r["detections"])]
        assert browser.execute_script(f"return {count}") == f"{len(wanted)} of 62 images"
        browser.execute_script("document.getElementById('clear').click()")
        _set(browser, "status", "skipped", "change")
        assert _cells(browser) == ["bad.png", "worse.png"]
        thumbs = browser.execute_script(
            "return [...document.querySelectorAll('.thumb.skipped')].map((t) => t.textContent)"
        )
        assert set(thumbs) == {"damaged", "empty"}
        browser.execute_script("document.getElementById('clear').click()")
        # Order, by the best score; images without any come last.
        _set(browser, "order", "score", "change")
        bests = [max((one["score"] for one in r["detections"]), default=2) for r in records]
        first = browser.execute_script("return document.querySelector('.cell.current bdi').textContent")
        _press(browser, "HOME", "ENTER")
        lowest = records[bests.index(min(bests))]["file_name"]
        _shown(browser, lowest)
        assert first
        # In the large view arrows go on, classes are hidden, Escape closes.
        _press(browser, "ARROW_RIGHT")
        _wait(browser, "document.getElementById('view-place').textContent === '2 of 62'")
        _press(browser, "ARROW_LEFT")
        _shown(browser, lowest)
        assert _wait(browser, "decodeURIComponent(location.hash.slice(1)) === arguments[0]", lowest)
        _press(browser, "ESCAPE")
        _wait(browser, "!document.getElementById('view').open")
        assert _complaints(browser) == []
        # The address alone leads there again.
        browser.get("about:blank")
        browser.get(index.as_uri() + "#" + lowest)
        _shown(browser, lowest)
        record = json.loads(browser.execute_script("return document.getElementById('record').textContent"))
        assert record == records[bests.index(min(bests))]


def _set(browser, name, value, event="input"):
    browser.execute_script(
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event(arguments[2]))",
        name, str(value), event,
    )  # fmt: skip


def _colours(browser, path):
    browser.save_screenshot(str(path))
    with Image.open(path) as picture:
        return picture.convert("RGB")


@pytest.mark.parametrize("kind", ["masks", "rotated", "labels", "segments"])
def test_the_large_view_draws_what_was_found(tmp_path, kind):
    index = write_run(tmp_path / "out", [f"{number}.png" for number in range(6)], kind, seed=3)
    records = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").open()]
    key = "pixels" if kind == "labels" else "segments" if kind == "segments" else "detections"
    number = max(range(6), key=lambda at: len(records[at][key]))
    with opened_browser(900, 600) as browser:
        browser.get(f"{index.as_uri()}#{number}.png")
        _shown(browser, f"{number}.png")
        place = browser.execute_script(
            "const box = document.querySelector('#panes canvas').getBoundingClientRect();"
            "return [box.left, box.top, box.width, box.height]"
        )
        left, top, width, height = place
        _set(browser, "opacity", 1)
        shown = _colours(browser, tmp_path / "shown.png")
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
        bare = _colours(browser, tmp_path / "bare.png")
        with Image.open(tmp_path / "out" / pictures.view_file(f"{number}.png")) as view:
            for x, y in ((5, 5), (80, 60), (150, 110), (40, 90)):
                expected = view.convert("RGB").getpixel((x, y))
                found = bare.getpixel((int(x0 + (x + 0.5) * scale), int(y0 + (y + 0.5) * scale)))
                assert max(abs(a - b) for a, b in zip(found, expected)) < 40
        assert _complaints(browser) == []


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
        _open(browser, index)
        _set(browser, "sequence", 1, "change")
        assert _cells(browser) == names[6:]
        _press(browser, "HOME", "ENTER")
        _shown(browser, names[6])
        before = _colours(browser, tmp_path / "before.png")
        car, walker = _classes(index)[1]
        assert _has(before, car)
        assert _has(before, walker)
        assert browser.find_element("css selector", ".caption").text == "space; the corner at the sensor is 2 m long"
        from selenium.webdriver import ActionChains

        canvas = browser.find_element("css selector", "#panes canvas")
        ActionChains(browser).drag_and_drop_by_offset(canvas, 120, 30).perform()
        assert list(_colours(browser, tmp_path / "after.png").getdata()) != list(before.getdata())
        browser.execute_script("document.querySelectorAll('#view-classes input')[0].click()")
        hidden = _colours(browser, tmp_path / "hidden.png").crop((0, 50, 720, 700))
        assert not _has(hidden, car)
        assert _has(hidden, walker)
        assert _complaints(browser) == []


def test_matches_are_told_the_least_similar_first(tmp_path):
    names = [f"q{number},50.0,8.0,.jpg" for number in range(5)]
    index = write_run(tmp_path / "out", names, "matches", skipped={"bad.jpg": "damaged"})
    records = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").open()]
    similarities = [record["matches"][0]["similarity"] for record in records]
    with opened_browser() as browser:
        # As it is typed: commas, which an address that is copied from the page has in another form.
        browser.get(index.as_uri() + "#" + names[0])
        _shown(browser, names[0])
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
        before = _colours(browser, tmp_path / "before.png")
        _wheel(browser)
        assert list(_colours(browser, tmp_path / "after.png").getdata()) != list(before.getdata())
        _press(browser, "ESCAPE")
        _wait(browser, "!document.getElementById('view').open")
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
        _set(browser, "score", bound)
        assert len(_cells(browser)) == sum(one >= bound for one in similarities)
        assert _complaints(browser) == []


def test_matches_without_pictures_and_those_that_were_not_copied(tmp_path):
    bare = write_run(tmp_path / "bare", ["q.jpg"], "matches", drawn=False, page=False)
    lost = write_run(tmp_path / "lost", ["q.jpg"], "matches")
    (lost.parent / "images" / "q.jpg").unlink()
    with opened_browser() as browser:
        for index, words in ((bare, "no picture"), (lost, "images/q.jpg is missing")):
            browser.get(index.as_uri() + "#q.jpg")
            _shown(browser, "q.jpg")
            assert words in browser.find_element("css selector", "#panes .words").text
            assert len(browser.find_elements("css selector", "#view-table tr")) == 12


def test_levels_of_pyramids_are_listed(tmp_path):
    levels = [{"factor": 1, "windows": 72, "detections": 199}, {"factor": 4, "windows": 1, "detections": 3}]
    record = {"file_name": "a.png", "width": 30, "height": 20, "detections": [], "levels": levels}
    page.write_page(tmp_path, page.Facts("t", "image", "images"), [page.Item("a.png", record)], {})
    with opened_browser() as browser:
        browser.get((tmp_path / "index.html").as_uri() + "#a.png")
        _shown(browser, "a.png")
        rows = [row.text for row in browser.find_elements("css selector", "#view-table tr")]
        assert rows == ["image 72 windows 199 found", "1/4 1 window 3 found"]


def _wheel(browser):
    browser.execute_script(
        "document.querySelector('#panes canvas').dispatchEvent("
        "new WheelEvent('wheel', {deltaY: -400, clientX: 300, clientY: 300, cancelable: true}))"
    )


def test_narrow_screens_have_filters(tmp_path):
    index = write_run(tmp_path / "out", ["0.png", "1.png"], "masks", seed=3)
    with opened_browser(390, 800) as browser:
        _open(browser, index)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        filters = browser.find_element("id", "aside")
        assert not filters.is_displayed()
        browser.find_element("id", "filters").click()
        assert filters.is_displayed()
        assert filters.size["width"] == 390
        assert browser.find_element("css selector", ".cell").is_displayed()
        browser.find_element("id", "filters").click()
        assert not filters.is_displayed()


def test_two_fingers_zoom_and_one_moves(tmp_path):
    pixels = np.full((300, 300, 3), 90, np.uint8)
    pixels[130:170, 130:170] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    # Done before there was a page: there is nothing but the picture that was drawn.
    record = {"file_name": "a", "width": 300, "height": 300, "detections": []}
    page.write_page(tmp_path, page.Facts("t", "u", "us"), [page.Item("a", record, picture="a.png")], {})
    with opened_browser(390, 800) as browser:
        browser.get((tmp_path / "index.html").as_uri() + "#a")
        _shown(browser, "a")
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
    red, green, _ = np.moveaxis(np.asarray(_colours(browser, folder / "shot.png")).astype(int), 2, 0)
    rows, columns = np.nonzero((red > 200) & (green < 60))
    return columns.min(), rows.min(), columns.max(), rows.max()


def _touch(browser, *steps):
    """Fingers at places, step by step, and then off the screen."""
    for number, places in enumerate((*steps, [])):
        kind = "touchStart" if not number else "touchMove" if places else "touchEnd"
        points = [{"x": float(x), "y": float(y), "id": finger} for finger, (x, y) in enumerate(places)]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    # Pictures are taken of what was drawn.
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def _has(picture, colour):
    return any(max(abs(a - b) for a, b in zip(pixel, colour)) < 12 for _, pixel in picture.getcolors(10**7))


def test_dark_and_light(tmp_path):
    index = write_run(tmp_path / "out", ["0.png", "1.png"], "masks")
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened_browser(dark=True) as browser:
        _open(browser, index)
        dark = browser.execute_script(f"return {ground}")
        browser.execute_script("document.getElementById('theme').click(); document.getElementById('theme').click()")
        light = browser.execute_script(f"return {ground}")
    assert dark == "rgb(20, 22, 26)"
    assert light == "rgb(251, 251, 252)"


def test_twenty_thousand_images_scroll(tmp_path):
    for number in range(40):
        pictures.write_thumbnail(tmp_path, f"{number}.jpg", _flat(number))

    def items():
        for number in range(20_000):
            found = [("ship", 0.3 + number % 7 / 10), ("plane", 0.5)] * (number % 5)
            yield page.Item(f"{number}.jpg", {"file_name": f"{number}.jpg", "detections": []}, found)

    page.write_page(tmp_path, page.Facts("many", "image", "images"), items(), {})
    assert (tmp_path / "index.html").stat().st_size < 4e6
    with opened_browser() as browser:
        _open(browser, tmp_path / "index.html")
        # A frame costs what it shows: cells that exist, and those in sight.
        frames = browser.execute_async_script(
            "const done = arguments[0], grid = document.getElementById('grid'), counts = [];"
            "const step = () => { const cells = [...document.querySelectorAll('.cell')];"
            " const shown = cells.filter(cell => !cell.hidden && cell.getBoundingClientRect().bottom > 0);"
            " counts.push([cells.length, shown.length]);"
            " if (counts.length > 120) done(counts);"
            " else { grid.scrollTop += 1500; requestAnimationFrame(() => requestAnimationFrame(step)); } };"
            "requestAnimationFrame(step);"
        )
        _press(browser, "END", "ENTER")
        _shown(browser, "19999.jpg")
    assert max(cells for cells, _ in frames) < 60  # however many images there are
    assert min(shown for _, shown in frames) > 8  # nor is the grid ever empty while it scrolls


def _flat(number):
    return np.full((60, 80, 3), (number * 6 % 255, 90, 160), np.uint8)
