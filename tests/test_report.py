"""Pages: the report of an evaluation and `restore compare`, up to the browser."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluation_tools import check_page, denoise_results, write_pictures

from restore.cli.app import run
from restore.evaluation.compare import find_pairs
from restore.evaluation.evaluate import evaluate
from restore.evaluation.results import Results
from restore.evaluation.trials import Method, find_entries
from restore.images import Image, read_image, write_image
from restore.metrics import psnr
from restore.tasks import TASKS
from restore.tasks.base import load_task


@pytest.fixture(scope="module")
def clean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "clean")


@pytest.fixture(scope="module")
def report_page(clean_folder: Path) -> str:
    from restore.evaluation.report import report

    results = denoise_results(clean_folder, ["wavelets"])
    methods = [*results.methods, Method("<b>mine</b>", "model", "a & b", results.methods[-1].restore)]
    task, damage = load_task("denoise"), TASKS["denoise"].damage(sigma=(25.0, 25.0))
    results = Results("denoise", 0, "restore evaluate denoise clean --sigma '<25>'", methods)
    for scored in evaluate(find_entries(clean_folder), task, damage, methods):
        results.add(scored)
    return report(results, find_entries(clean_folder), task, damage)


def test_report_holds_table_scatter_and_pictures(report_page: str) -> None:
    page = check_page(report_page, sliders=3)
    assert page.tags.count("svg") == 1
    assert page.tags.count("circle") == 3
    assert page.tags.count("img") == 9
    assert page.tags.count("tr") == 4
    assert "&lt;b&gt;mine&lt;/b&gt;" in report_page
    assert "--sigma &#x27;&lt;25&gt;&#x27;" in report_page
    for word in ("best: ", "median: ", "worst: ", "unclipped float", "Means of per-picture values over 3 pictures"):
        assert word in report_page


def test_report_ranks_pictures_and_shows_what_was_scored(report_page: str, clean_folder: Path) -> None:
    """Best, median, worst fall in PSNR, and the crops are the very pixels that the scores are about."""
    shown = re.findall(r"<h4>(\w+): (\S+) <span class=note>\(PSNR ([\d.]+)", report_page)
    assert [title for title, _, _ in shown] == ["best", "median", "worst"]
    values = [float(value) for _, _, value in shown]
    assert values == sorted(values, reverse=True)
    images = [read_image(base64.b64decode(d)).pixels for d in re.findall(r"base64,([^\"]+)", report_page)]
    for number, (_, name, value) in enumerate(shown):
        _, restored, clean = images[3 * number : 3 * number + 3]
        assert np.array_equal(clean, read_image(clean_folder / name).pixels)  # smaller than a crop: whole
        assert psnr(restored, clean) == pytest.approx(float(value), abs=0.006)


def test_crop_is_taken_where_the_error_is() -> None:
    from restore.evaluation.report import worst_window

    error = np.zeros((400, 500))
    error[300:310, 400:420] = 1
    top, left = worst_window(error, 100)
    assert top <= 300 <= 310 <= top + 100
    assert left <= 400 <= 420 <= left + 100
    assert worst_window(error[:50, :60], 100) == (0, 0)


Browser = Callable[[str], tuple[str, list[str]]]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Opens a page in Chromium: the document after its script has run, and what the console said."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")

    def look(text: str) -> tuple[str, list[str]]:
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND"]
        done = subprocess.run(
            [chromium, *flags, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return look


def test_report_opens_in_a_browser_without_errors(report_page: str, browser: Browser) -> None:
    document, console = browser(report_page)
    assert console == []
    assert 'data-ready="yes"' in document
    assert re.findall(r"--cut: (\d+)%;\"", document) == ["50", "50", "50"]


def test_sliders_slide(report_page: str, browser: Browser) -> None:
    """Moving one handle uncovers that picture, and leaves the others."""
    script = "const h = document.querySelector('.slider input'); h.value = 20; h.dispatchEvent(new Event('input'));"
    document, console = browser(report_page.replace("</body>", f"<script>{script}</script></body>"))
    assert console == []
    assert re.findall(r"--cut: (\d+)%;\"", document) == ["20", "50", "50"]


def test_the_browser_test_sees_errors(report_page: str, browser: Browser) -> None:
    """A script that fails, and a picture from elsewhere, both show: silence above means something."""
    document, console = browser(report_page.replace("const move", "nonsense(); const move"))
    assert any("nonsense is not defined" in line for line in console)
    assert "data-ready" not in document
    _, console = browser(report_page.replace("<h1>", '<img src="https://example.org/a.png"><h1>'))
    assert any("Content Security Policy" in line for line in console)


# Compare


def test_compare_side_by_side(clean_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = clean_folder / "cat.png", tmp_path / "after.png"
    pixels = read_image(first).pixels
    write_image(Image(255 - pixels), second)
    assert run(["compare", str(first), str(second)]) == 0
    both = read_image(tmp_path / "after.compared.png").pixels
    height, width = pixels.shape[:2]
    assert np.array_equal(both[-height:, :width], pixels)
    assert np.array_equal(both[-height:, -width:], 255 - pixels)
    assert (both[-height:, width:-width] == 255).all()
    for side in (both[:-height, :width], both[:-height, -width:]):
        assert side.size and side.min() < 100 < side.mean(), "has no label"
    assert run(["compare", str(first), str(second)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(["compare", str(first), str(second), "--overwrite"]) == 0


def test_compare_with_a_slider_enlarges_the_smaller(clean_folder: Path, tmp_path: Path) -> None:
    from restore.corruptions.downsample import resize_bicubic

    pixels = read_image(clean_folder / "cat.png").pixels
    small = resize_bicubic(pixels, (36, 36))
    write_image(Image(small), tmp_path / "small.png")
    page_file = tmp_path / "new" / "page.html"
    assert run(["compare", str(tmp_path / "small.png"), str(clean_folder / "cat.png"), "-o", str(page_file)]) == 0
    text = page_file.read_text(encoding="utf-8")
    check_page(text, sliders=1)
    before, after = (read_image(base64.b64decode(d)).pixels for d in re.findall(r"base64,([^\"]+)", text))
    assert np.array_equal(before, resize_bicubic(small, (72, 72)))
    assert np.array_equal(after, pixels)
    assert str(tmp_path) not in text


def test_compare_takes_gray_deep_and_transparent(tmp_path: Path) -> None:
    gray = np.full((6, 4, 1), 65535, np.uint16)
    write_image(Image(gray), tmp_path / "gray.png")
    clear = Image(np.zeros((6, 4, 3), np.uint8), alpha=np.zeros((6, 4), np.uint8))
    write_image(clear, tmp_path / "clear.png")
    assert run(["compare", str(tmp_path / "gray.png"), str(tmp_path / "clear.png"), "-o", str(tmp_path / "o.png")]) == 0
    both = read_image(tmp_path / "o.png").pixels
    assert both.shape == (6, 16, 3)
    assert (both == 255).all()


def test_compare_folders(clean_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each pair of one name gets a slider, whatever its format; what has no counterpart is named."""
    after = tmp_path / "after"
    (after / "sub").mkdir(parents=True)
    write_image(Image(255 - read_image(clean_folder / "cat.png").pixels), after / "cat.tif")
    write_image(Image(255 - read_image(clean_folder / "sub/coffee.png").pixels), after / "sub/coffee.png")
    page_file = tmp_path / "all.html"
    assert run(["compare", str(clean_folder), str(after), "-o", str(page_file), "--labels", "old, new"]) == 0
    text = page_file.read_text(encoding="utf-8")
    check_page(text, sliders=2)
    assert "<h2>sub/coffee.png</h2>" in text
    assert '<b class="left">old</b><b class="right">new</b>' in text
    assert "astronaut.png" in capsys.readouterr().err
    assert run(["compare", str(clean_folder), str(after), "-o", str(page_file), "--limit", "1", "--overwrite"]) == 0
    check_page(page_file.read_text(encoding="utf-8"), sliders=1)
    assert run(["compare", str(clean_folder), str(after / "cat.tif")]) == 2


def test_pictures_of_one_stem_are_paired_by_their_whole_name(tmp_path: Path) -> None:
    """Of a.png and a.jpg in one folder none is dropped: each is paired with its like, or named as alone."""
    before, after = tmp_path / "before", tmp_path / "after"
    for folder, names in ((before, ("a.png", "a.jpg", "b.png")), (after, ("a.png", "a.webp", "b.tif"))):
        folder.mkdir()
        for name in names:
            write_image(Image(np.zeros((4, 4, 3), np.uint8)), folder / name)
    pairs, alone = find_pairs(before, after)
    assert [(first.name, second.name) for first, second in pairs] == [
        ("a.jpg", "a.webp"),
        ("a.png", "a.png"),
        ("b.png", "b.tif"),
    ]
    write_image(Image(np.zeros((4, 4, 3), np.uint8)), before / "a.bmp")
    pairs, alone = find_pairs(before, after)
    assert [first.name for first, _ in pairs] == ["a.png", "b.png"]
    assert [path.name for path in alone] == ["a.bmp", "a.jpg", "a.webp"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cat.png", "cat.png", "--labels", "one"], "such as before,after"),
        (["cat.png", "nowhere.png"], "nowhere.png"),
        (["cat.png", "astronaut.png"], "one must be a multiple of the other"),
        (["cat.png", "cat.png", "-o", "out.txt"], "end it in .html"),
        (["cat.png", "cat.png", "-o", "cat.png", "--overwrite"], "is an input"),
        (["cat.png", "cat.png", "-o", "cat.png"], "is an input"),
        (["cat.png", "cat.png", "-o", "raw.nef"], "end it in .html, .htm, .png, .jpg"),
    ],
)
def test_compare_refuses_in_one_line(
    words: list[str],
    said: str,
    clean_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("cat.png", "astronaut.png"):
        shutil.copy(clean_folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "cat.png").read_bytes()
    assert run(["compare", *words]) in (1, 2)
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert (tmp_path / "cat.png").read_bytes() == before
