"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from serve_tools import serving

from restore.images import Image, encode_image, read_image
from restore.tasks import TASKS

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")


PAINTED = """() => { const canvas = document.querySelector('canvas');
    return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]; }"""


@pytest.fixture(scope="module")
def served(tiny):
    with serving({task: str(tiny(task)) for task in TASKS}) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # Without a sandbox, which containers do not allow: it opens pages of ours only.
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser, served):
    """The page, ready; in the end nothing was asked of any other server, and no script failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    elsewhere, failures = [], []
    opened.on("request", lambda one: one.url.startswith((served.url, "blob:")) or elsewhere.append(one.url))
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.goto(served.url)
    opened.wait_for_selector("html[data-ready=yes]")
    yield opened
    context.close()
    assert not elsewhere and not failures


@pytest.fixture(scope="module")
def picture(photo):
    return photo[:160, :200]


def png(array: np.ndarray) -> bytes:
    return encode_image(Image(array), "png")


def until(page, expression: str, seconds: float = 60) -> None:
    """Waits until an expression is true. Playwright's own way to wait for one needs eval, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def choose(page, *pictures: np.ndarray | bytes, name: str = "photo") -> None:
    files = [
        {"name": f"{name}{number}.png", "mimeType": "image/png", "buffer": one if isinstance(one, bytes) else png(one)}
        for number, one in enumerate(pictures)
    ]
    page.set_input_files("#files", files)


def restored(page, number: int = 1) -> str:
    """Presses Restore, and gives what the queue says of a picture in the end."""
    page.click("#run")
    row = page.locator(f"#items li:nth-child({number})")
    row.locator(".state", has_text="done").wait_for()
    return row.inner_text()


def all_restored(page, count: int) -> zipfile.ZipFile:
    """Presses Restore, and when all `count` pictures are done the button for all of them."""
    page.click("#run")
    until(page, f"document.querySelectorAll('#items li.done').length === {count}")
    with page.expect_download() as caught:
        page.click("#archive")
    return zipfile.ZipFile(io.BytesIO(Path(caught.value.path()).read_bytes()))


def downloaded(page, number: int = 1) -> tuple[str, bytes]:
    with page.expect_download() as caught:
        page.click(f"#items li:nth-child({number}) a")
    return caught.value.suggested_filename, Path(caught.value.path()).read_bytes()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_what_the_api_gives(page, served, picture, task):
    data = png(picture if task != "colorize" else picture[..., :1])
    page.select_option("#task", task)
    assert "-m " not in page.inner_text("#task-help")  # no flags of the command line
    choose(page, data)
    restored(page)
    name, result = downloaded(page)
    assert result == served.post(task, data).content
    assert name == f"photo0.{TASKS[task].file_suffix(TASKS[task].options())}.png"


def test_auto_says_what_it_decided_and_why(page, served, picture):
    page.select_option("#task", "auto")
    assert page.locator("#options [name=strength]").count() == 0 and page.locator("#mask-tools").is_hidden()
    page.check("#options [name=aggressive]")
    choose(page, picture)
    restored(page)
    name, result = downloaded(page)
    assert name == "photo0.restored.png"
    assert result == served.post("auto", png(picture), params={"aggressive": True}).content
    asked = {"params": {"aggressive": True}, "headers": {"accept": "application/json"}}
    steps = served.post("auto", png(picture), **asked).json()["steps"]
    assert page.locator("#items dt").all_inner_texts() == ["denoise", "dewatermark", "inpaint"]
    assert page.locator("#items dd").all_inner_texts() == [step["note"] for step in steps]
    assert "denoise" not in page.inner_text("#items .state") and axe(page) == []
    page.select_option("#options [name=enlarge]", "3")
    until(page, "document.querySelector('img.after').naturalWidth === 600")


def test_options_are_those_of_the_task(page, picture):
    page.select_option("#task", "super-resolve")
    page.select_option("#options [name=scale]", "4")
    choose(page, picture)
    restored(page)
    assert read_image(downloaded(page)[1]).size == (800, 640)
    page.select_option("#options [name=scale]", "3")  # tried at once on the picture that is shown
    until(page, "document.querySelector('img.after').naturalWidth === 600")
    page.select_option("#options [name=ext]", "jpg")
    until(page, "document.querySelector('#items a').download.endsWith('.x3.jpg')")
    assert downloaded(page)[1][:2] == b"\xff\xd8"


def test_the_line_divides_before_from_after(page, picture):
    """Read from the screen, at 1:1: to the left of the line the input's pixels, to the right the result's."""
    choose(page, picture)
    restored(page)
    after = read_image(downloaded(page)[1]).pixels
    assert (after != picture).any()
    page.click("#actual")
    assert page.inner_text("#zoom") == "100 %"
    page.locator("#fit").focus()

    def seen() -> np.ndarray:
        where = page.locator(".plane").bounding_box()
        clip = {"x": round(where["x"]), "y": round(where["y"]), "width": 200, "height": 160}
        return read_image(page.screenshot(clip=clip)).pixels[..., :3].astype(int)

    shot = seen()
    assert np.abs(shot[:100, :90] - picture[:100, :90]).max() <= 1
    assert np.abs(shot[:100, 110:] - after[:100, 110:]).max() <= 1
    stage = page.locator("#stage").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + 20
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(stage["x"] + 5, middle[1], steps=4)
    page.mouse.up()
    assert np.abs(seen()[:100] - after[:100]).max() <= 1
    page.locator("#divider").focus()  # and by the keyboard
    page.keyboard.press("End")
    page.locator("#fit").focus()
    assert np.abs(seen()[:100] - picture[:100]).max() <= 1


def test_strength_is_seen_at_once_and_computed(page, served, picture):
    choose(page, picture)
    restored(page)
    page.evaluate(
        """() => { const input = document.querySelector('[name=strength]'); input.value = 0.25;
        input.dispatchEvent(new Event('input', {bubbles: true})); }"""
    )
    assert page.evaluate("document.querySelector('img.after').style.opacity") == "0.25"
    page.evaluate("document.querySelector('[name=strength]').dispatchEvent(new Event('change', {bubbles: true}))")
    page.locator("#items .state", has_text="options have changed").wait_for()
    until(page, "/^done(?!.*changed)/.test(document.querySelector('#items .state').textContent)")
    assert downloaded(page)[1] == served.post("denoise", png(picture), params={"strength": 0.25}).content


def test_a_mask_is_found_painted_and_erased(page, picture):
    page.select_option("#task", "inpaint")
    choose(page, picture)
    page.click("#actual")
    page.check("[name=tool][value=brush]")
    plane = page.locator(".plane").bounding_box()

    def drag(fro: tuple[int, int], to: tuple[int, int]) -> None:
        page.mouse.move(plane["x"] + fro[0], plane["y"] + fro[1])
        page.mouse.down()
        page.mouse.move(plane["x"] + to[0], plane["y"] + to[1], steps=5)
        page.mouse.up()

    drag((40, 80), (160, 80))
    page.check("[name=tool][value=eraser]")
    drag((100, 50), (100, 110))
    restored(page)
    changed = (read_image(downloaded(page)[1]).pixels != picture).any(axis=-1)
    assert changed[75:85, 45:80].mean() > 0.5 and changed[75:85, 120:155].mean() > 0.5  # painted, both sides
    assert not changed[:, 92:108].any() and not changed[:60].any() and not changed[100:].any()  # erased; outside
    page.click("#undo")
    restored(page)
    changed = (read_image(downloaded(page)[1]).pixels != picture).any(axis=-1)
    assert changed[75:85, 92:108].mean() > 0.5
    mask = np.zeros((160, 200, 1), np.uint8)
    mask[:30, :30] = 255
    page.set_input_files("#mask-file", {"name": "m.png", "mimeType": "image/png", "buffer": png(mask)})
    page.wait_for_timeout(200)
    restored(page)
    changed = (read_image(downloaded(page)[1]).pixels != picture).any(axis=-1)
    assert changed[:30, :30].mean() > 0.5 and not changed[31:].any()


def test_hints_are_painted_in_colours(page, served, picture):
    """A dab of a colour goes to colorize as it is, and is no mask for another task afterwards."""
    data = png(picture[..., :1])
    page.select_option("#task", "colorize")
    choose(page, data)
    page.click("#actual")
    page.fill("#colour", "#2040c0")
    page.dispatch_event("#colour", "change")
    page.check("[name=tool][value=brush]")
    plane = page.locator(".plane").bounding_box()
    page.mouse.click(plane["x"] + 50, plane["y"] + 60)
    restored(page)
    hints = np.array(page.evaluate(PAINTED), np.uint8).reshape(160, 200, 4)
    assert tuple(hints[60, 50]) == (32, 64, 192, 255) and 200 < (hints[..., 3] > 127).sum() < 800
    dots = encode_image(Image(hints[..., :3], alpha=hints[..., 3]), "png")
    told = served.client.post("/api/v1/colorize", files={"file": ("a.png", data), "hints": ("h.png", dots)})
    untold = served.post("colorize", data).content
    assert downloaded(page)[1] == told.content != untold
    page.click("#clear")
    restored(page)
    assert downloaded(page)[1] == untold
    page.select_option("#task", "inpaint")
    assert not any(page.evaluate(PAINTED))


def test_what_was_found_is_where_painting_starts(page, served, picture):
    page.select_option("#task", "inpaint")
    samples = [sample for sample in served.client.get("/api/v1/samples").json()["inpaint"] if "chelsea" in sample]
    data = served.client.get(f"/api/v1/samples/inpaint/{samples[0]}").content
    page.check("#options [name=aggressive]")
    choose(page, data)
    said = restored(page)
    job = served.begin("inpaint", data, aggressive=True)
    state = served.ended(job)
    if not state["mask_share"]:
        pytest.skip("these random weights find nothing in it")
    assert "of it restored" in said
    share = page.evaluate(
        """() => { const canvas = document.querySelector('canvas');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, at) => at % 4 === 3 && value > 127).length / (data.length / 4); }"""
    )
    assert share == pytest.approx(state["mask_share"], abs=1e-6)


def test_dropped_files_queue_progress_and_zip(page, picture):
    files = [png(np.roll(picture, 7 * number, axis=1)) for number in range(3)]
    dropped = page.evaluate_handle(
        """(files) => { const data = new DataTransfer();
        files.forEach((bytes, number) => data.items.add(new File([new Uint8Array(bytes)], `d${number}.png`)));
        data.items.add(new File(['no picture'], 'readme.txt'));
        return data; }""",
        [list(one) for one in files],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    until(page, "document.querySelectorAll('#items li').length === 3")
    with all_restored(page, 3) as archive:
        assert sorted(archive.namelist()) == [f"d{number}.denoised.png" for number in range(3)]
        assert read_image(archive.read("d1.denoised.png")).size == (200, 160)


def test_folders_are_kept_in_the_zip(page, picture, tmp_path):
    for name in ("scans/1/x.png", "scans/2/x.png", "scans/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(picture))
    page.set_input_files("#folder", tmp_path / "scans")
    until(page, "document.querySelectorAll('#items li').length === 2")
    with all_restored(page, 2) as archive:
        assert sorted(archive.namelist()) == ["scans/1/x.denoised.png", "scans/2/x.denoised.png"]


def test_a_picture_can_be_cancelled_and_removed(page, picture, monkeypatch):
    from restore.serve.restorers import WatchedRestorer

    compute, go_on = WatchedRestorer._restore_tiles, threading.Event()

    def slowly(self, *arguments):
        while not go_on.wait(0.02):
            self.watch.check()
        return compute(self, *arguments)

    monkeypatch.setattr(WatchedRestorer, "_restore_tiles", slowly)
    try:
        choose(page, picture, b"no picture")
        page.click("#run")
        page.locator("#items li:nth-child(1) .state", has_text="restoring").wait_for()
        page.get_by_role("button", name="Cancel photo0.png").click()
        page.locator("#items li:nth-child(1) .state", has_text="cancelled").wait_for()
        page.locator("#items li:nth-child(2) .state", has_text="is no picture this program reads").wait_for()
    finally:
        go_on.set()
    page.get_by_role("button", name="Remove photo1.png").click()
    assert page.locator("#items li").count() == 1
    restored(page)  # the first, again


def test_formats_that_browsers_do_not_show(page, picture):
    data = encode_image(Image(picture.astype(np.uint16) * 257), "tiff")
    page.set_input_files("#files", {"name": "scan.tif", "mimeType": "image/tiff", "buffer": data})
    until(page, "document.querySelector('img.before').naturalWidth === 200")
    restored(page)
    until(page, "document.querySelector('img.after').naturalWidth === 200")
    name, result = downloaded(page)
    assert name == "scan.denoised.tif" and read_image(result).pixels.dtype == np.uint16


def axe(page) -> list[str]:
    """What axe-core objects to."""
    if find_spec("axe_playwright_python") is None:
        pytest.skip("axe-core is not installed: pip install axe-playwright-python")
    spec = find_spec("axe_playwright_python")
    page.evaluate((Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    return [f"{one['id']}: {[node['html'][:90] for node in one['nodes']]}" for one in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_and_phone_width(page, served, picture, scheme):
    page.emulate_media(color_scheme=scheme)
    page.select_option("#task", "inpaint")
    choose(page, picture, b"no picture")
    page.click("#run")
    page.locator("#items li:nth-child(1) .state", has_text="done").wait_for()
    page.locator("#items li:nth-child(2) .state", has_text="failed").wait_for()
    assert axe(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#stage").bounding_box()["width"] > 300
    assert axe(page) == []
    page.goto(f"{served.url}/docs")
    page.wait_for_selector("html[data-ready=yes]")
    assert "/api/v1/denoise" in page.inner_text("main")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert axe(page) == []


def test_the_keyboard_reaches_everything(page, picture):
    choose(page, picture)
    restored(page)
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.className"
            )
        )
    assert {"files", "samples", "task", "strength", "run", "stage", "divider", "zoom-in", "fit", "name"} <= reached
    page.focus("#stage")
    page.keyboard.press("1")
    before = page.locator(".plane").bounding_box()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".plane").bounding_box()["x"] == before["x"] + 40
    page.keyboard.press("+")
    assert page.inner_text("#zoom") == "125 %"
    page.keyboard.press("0")
    assert page.inner_text("#zoom") == "100 %"
