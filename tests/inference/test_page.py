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
from tests.inference.browsing import complaints, names_of_cells, open_page, press, set_field, wait_for, wait_for_item
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
        open_page(browser, index)
        texts = names_of_cells(browser)
        assert len(texts) == len(names) + 1
        assert texts[:-1] == [re.sub("[\udc80-\udcff]", "\ufffd", name) for name in names]
        assert texts[-1] == "z</script>'\".png"
        for number, text in enumerate(texts[:-1]):
            browser.execute_script("document.querySelector(`.cell[data-index='${arguments[0]}']`).click()", number)
            wait_for_item(browser, text)
            assert wait_for(browser, "document.querySelector('#panes canvas')")
            links = browser.execute_script(
                "return [...document.querySelectorAll('#links a')].map((link) => [link.textContent, link.href])"
            )
            made = [href for word, href in links if word not in ("the file itself", "link to this record")]
            assert made
            for href in made:
                assert _path_of(href).is_file(), href
            browser.execute_script("document.getElementById('close').click()")
        assert browser.execute_script("return document.querySelectorAll('b').length") == 0
        assert complaints(browser) == []


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
        open_page(browser, index)
        # In one task of the browser, so that no event comes in between.
        browser.execute_script(
            "const [a, b] = document.querySelectorAll('.cell:not([hidden])');"
            "a.click(); document.getElementById('close').click(); b.click();"
        )
        wait_for_item(browser, "b.png")
        time.sleep(0.3)
        assert browser.execute_script("return document.getElementById('view').open")
        wait_for_item(browser, "b.png")
        press(browser, "ESCAPE")
        wait_for(browser, "document.getElementById('view').dataset.shown === undefined && location.hash === ''")


def test_keys_and_filters(tmp_path):
    names = [f"{'day' if number % 2 else 'night'}/{number:03d}.png" for number in range(60)]
    index = write_run(
        tmp_path / "out", names, ("masks", "rotated"), skipped={"bad.png": "damaged", "worse.png": "empty"}
    )
    records = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").open()]
    with opened_browser() as browser:
        open_page(browser, index)
        count = "document.getElementById('count').textContent"
        assert browser.execute_script(f"return {count}") == "62 images"
        press(browser, "/", "d", "a", "y")
        assert browser.execute_script(f"return {count}") == "30 of 62 images"
        assert browser.execute_script("return document.activeElement.id") == "search"
        press(browser, "ESCAPE")
        assert browser.execute_script("return document.activeElement.id") == "grid"
        browser.execute_script("document.getElementById('clear').click()")
        assert browser.execute_script(f"return {count}") == "62 images"
        # Classes, and how many of them.
        browser.execute_script("document.querySelectorAll('#classes input')[0].click()")
        wanted = [r for r in records if any(one["label"] == "ship" for one in r["detections"])]
        assert browser.execute_script(f"return {count}") == f"{len(wanted)} of 62 images"
        set_field(browser, "least", 2)
        wanted = [r for r in records if sum(one["label"] == "ship" for one in r["detections"]) >= 2]
        assert 0 < len(wanted) < 30
        assert browser.execute_script(f"return {count}") == f"{len(wanted)} of 62 images"
        set_field(browser, "least", "")
        set_field(browser, "score", 0.8)
        wanted = [r for r in records if any(one["label"] == "ship" and one["score"] >= 0.8 for one in r["detections"])]
        assert browser.execute_script(f"return {count}") == f"{len(wanted)} of 62 images"
        browser.execute_script("document.getElementById('clear').click()")
        set_field(browser, "status", "skipped", "change")
        assert names_of_cells(browser) == ["bad.png", "worse.png"]
        thumbs = browser.execute_script(
            "return [...document.querySelectorAll('.thumb.skipped')].map((t) => t.textContent)"
        )
        assert set(thumbs) == {"damaged", "empty"}
        browser.execute_script("document.getElementById('clear').click()")
        # Order, by the best score; images without any come last.
        set_field(browser, "order", "score", "change")
        bests = [max((one["score"] for one in r["detections"]), default=2) for r in records]
        first = browser.execute_script("return document.querySelector('.cell.current bdi').textContent")
        press(browser, "HOME", "ENTER")
        lowest = records[bests.index(min(bests))]["file_name"]
        wait_for_item(browser, lowest)
        assert first
        # In the large view arrows go on, classes are hidden, Escape closes.
        press(browser, "ARROW_RIGHT")
        wait_for(browser, "document.getElementById('view-place').textContent === '2 of 62'")
        press(browser, "ARROW_LEFT")
        wait_for_item(browser, lowest)
        assert wait_for(browser, "decodeURIComponent(location.hash.slice(1)) === arguments[0]", lowest)
        press(browser, "ESCAPE")
        wait_for(browser, "!document.getElementById('view').open")
        assert complaints(browser) == []
        # The address alone leads there again.
        browser.get("about:blank")
        browser.get(index.as_uri() + "#" + lowest)
        wait_for_item(browser, lowest)
        record = json.loads(browser.execute_script("return document.getElementById('record').textContent"))
        assert record == records[bests.index(min(bests))]


def test_narrow_screens_have_filters(tmp_path):
    index = write_run(tmp_path / "out", ["0.png", "1.png"], "masks", seed=3)
    with opened_browser(390, 800) as browser:
        open_page(browser, index)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        filters = browser.find_element("id", "aside")
        assert not filters.is_displayed()
        browser.find_element("id", "filters").click()
        assert filters.is_displayed()
        assert filters.size["width"] == 390
        assert browser.find_element("css selector", ".cell").is_displayed()
        browser.find_element("id", "filters").click()
        assert not filters.is_displayed()


def test_dark_and_light(tmp_path):
    index = write_run(tmp_path / "out", ["0.png", "1.png"], "masks")
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened_browser(dark=True) as browser:
        open_page(browser, index)
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
        open_page(browser, tmp_path / "index.html")
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
        press(browser, "END", "ENTER")
        wait_for_item(browser, "19999.jpg")
    assert max(cells for cells, _ in frames) < 60  # however many images there are
    assert min(shown for _, shown in frames) > 8  # nor is the grid ever empty while it scrolls


def _flat(number):
    return np.full((60, 80, 3), (number * 6 % 255, 90, 160), np.uint8)
