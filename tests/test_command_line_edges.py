"""What users of other tools type first: version, help, completion, pipes, odd files in a folder."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from conftest import ROOT

import restore as package
from restore.cli.app import run
from restore.images import Image, encode_image, read_image, write_image
from restore.images.formats import FORMATS, RAW_SUFFIXES

MODULE = [sys.executable, "-m", "restore"]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert run(list(words)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_version_and_help_are_no_errors(capsys):
    assert shown(capsys, "--version") == f"restore {package.__version__}\n"
    assert "Usage: restore" in shown(capsys)
    for name in ("train", "corrupt", "evaluate", "latent"):
        assert f"Usage: restore {name}" in shown(capsys, name)


def test_every_command_has_two_examples_and_groups(capsys):
    """Examples are of that command; flags are in groups."""
    names = re.findall(r"^  ([a-z-]+)  +\S", shown(capsys).partition("Commands:")[2], re.MULTILINE)
    assert len(names) >= 14
    for name in names:
        text = shown(capsys, name, "--help")
        if "Commands:" in text:
            text = shown(capsys, name, re.findall(r"^  ([a-z-]+)  +\S", text.partition("Commands:")[2], re.M)[0], "-h")
        assert text.count(f"\n  restore {name} ") >= 2, name
    text = shown(capsys, "denoise", "--help")
    places = [text.index(f"\n{title}:") for title in ("Arguments", "Effect", "Files", "Network", "Run", "Examples")]
    assert places == sorted(places)
    assert places[1] < text.index("--sigma") < places[2] < text.index("--overwrite") < places[3]


def test_completion():
    """Typer's own: the shell asks the program for what may follow."""
    asked = {"_RESTORE_COMPLETE": "complete_bash", "COMP_WORDS": "restore den", "COMP_CWORD": "1"}
    script = "import sys; sys.argv = ['restore']; from restore.cli.app import main; main()"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["denoise"]


def raw_frames(count: int, width: int = 32, height: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def piped(data: bytes, *words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*MODULE, *map(str, words)], input=data, capture_output=True, cwd=ROOT, timeout=300)


def test_frames_of_a_video_through_a_pipe(tiny):
    """100 frames in and out in order; a stream that ends inside of a frame is an error, after all whole ones."""
    frames = raw_frames(100)
    words = ["-m", tiny("denoise"), "--device", "cpu", "--precision", "fp32"]
    done = piped(frames.tobytes() + b"12", "denoise", "-", "-", "--raw", "32x24", *words)
    assert done.returncode == 1
    assert b"2 of the 2304 bytes of frame 100" in done.stderr
    made = np.frombuffer(done.stdout, np.uint8).reshape(frames.shape)
    denoise = package.load("denoise", str(tiny("denoise")), device="cpu", precision="fp32")
    for number in (0, 50, 99):
        assert np.array_equal(made[number], denoise(frames[number]))


def test_frames_enlarged_and_refused(tiny, capsys, tmp_path):
    done = piped(raw_frames(2).tobytes(), "super-resolve", "-", "-", "--raw", "32x24", "-m", tiny("super-resolve"))
    assert done.returncode == 0
    assert len(done.stdout) == 2 * 64 * 48 * 3
    assert b"rgb24 of 64x48" in done.stderr
    for words, said in (
        (["-", "-", "--raw", "1920"], "such as 1920x1080"),
        (["a.png", "--raw", "32x24"], "give - - --raw 32x24"),
        (["-", "-", "--raw", "32x24", "--json"], "leave out"),
    ):
        assert run(["denoise", *words]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_progress_on_a_terminal_has_rate_and_time_left(tiny, tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        write_image(Image(raw_frames(1, 64, 48)[0]), folder / f"{number}.png")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [*MODULE, "denoise", folder, tmp_path / "out", "-m", tiny("denoise"), "--device", "cpu"]
    process = subprocess.Popen(list(map(str, command)), stderr=theirs, stdout=theirs, cwd=ROOT)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 4096):
            text += part
    except OSError:  # Linux, when the other side is closed
        pass
    assert process.wait() == 0
    assert re.search(rb"3/3 pictures .*to go.*[0-9.]+ megapixels/s", text)


# --- odd files ---------------------------------------------------------------------------------------------------


def test_pictures_that_are_not_taken_are_named(tiny, tmp_path, capsys):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    write_image(Image(raw_frames(1)[0]), folder / "a.png")
    for name in ("film.gif", "sub/drawing.psd", "notes.txt"):
        (folder / name).write_bytes(b"?")
    words = ["denoise", str(folder), str(tmp_path / "out"), "-r", "-m", str(tiny("denoise")), "--device", "cpu"]
    assert run(words) == 0
    said = capsys.readouterr().err
    assert "not taken: 2 pictures of formats that are not read (1 .gif, 1 .psd)" in said
    assert "film.gif" in said and "drawing.psd" in said
    assert "left out 1 files that are no pictures by their suffix (1 .txt)" in said
    assert run([*words, "--overwrite", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted((Path(line["input"]).name, line["status"]) for line in lines) == [
        ("a.png", "restored"),
        ("drawing.psd", "not taken"),
        ("film.gif", "not taken"),
    ]
    (folder / "a.png").unlink()
    assert run(["denoise", str(folder)]) == 2
    assert "film.gif" in capsys.readouterr().err


def pages(count: int = 3) -> list[np.ndarray]:
    """Pages of several sizes, the last one gray."""
    made = [np.random.default_rng(n).integers(0, 256, (40 + n, 50, 3), np.uint8) for n in range(count)]
    return [*made[:-1], made[-1][..., :1]]


def test_tiff_of_several_pages(tiny, tmp_path, capsys):
    """Page by page into one file; what cannot hold pages, and a mask, are refused."""
    path, out = tmp_path / "scan.tif", tmp_path / "out.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in pages():
            writer.write(page.squeeze(), photometric="rgb" if page.shape[2] == 3 else "minisblack")
    words = ["-m", str(tiny("denoise")), "--device", "cpu", "--precision", "fp32"]
    assert run(["denoise", str(path), str(out), *words]) == 0
    assert "3 pages" in capsys.readouterr().err
    denoise = package.load("denoise", str(tiny("denoise")), device="cpu", precision="fp32")
    with PIL.Image.open(out) as written:  # as others read it
        for number, page in enumerate(pages()):
            written.seek(number)
            assert np.array_equal(np.asarray(written), denoise(page).squeeze())
        assert written.n_frames == 3
    assert run(["denoise", str(path), str(tmp_path / "out.png"), *words]) == 1
    assert "has 3 pages, which PNG does not hold" in capsys.readouterr().err
    mask = write_image(Image(np.zeros((40, 50, 1), np.uint8)), tmp_path / "mask.png")
    assert run(["inpaint", str(path), "--mask", str(mask), "-m", str(tiny("inpaint")), "--device", "cpu"]) == 1
    assert "3 pages, and a mask" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mask.png", "out.tif", "scan.tif"]


def test_pages_in_which_nothing_is_found_are_copied(tmp_path):
    path = tmp_path / "scan.tif"
    with tifffile.TiffWriter(path) as writer:
        for value in (80, 90):
            writer.write(np.full((64, 64, 3), value, np.uint8), photometric="rgb")
    assert run(["inpaint", str(path), str(tmp_path / "out.tif"), "--device", "cpu", "-q"]) == 0
    assert (tmp_path / "out.tif").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("progressive", [False, True])
def test_salvage_of_a_truncated_jpeg(progressive, photo, tiny, tmp_path, capsys):
    """The upper rows are those of the whole file, and it is said how many they are."""
    out = io.BytesIO()
    PIL.Image.fromarray(photo).save(out, "JPEG", quality=90, progressive=progressive)
    whole = out.getvalue()
    cut = whole[: int(len(whole) * (0.97 if progressive else 0.5))]
    image = read_image(cut, salvage=True)
    rows, height = map(int, re.search(r"(\d+) of (\d+) rows", image.notes[0]).groups())
    assert height == 300
    assert 0.3 * height < rows < height
    assert np.array_equal(image.pixels[: rows - 16], read_image(whole).pixels[: rows - 16])
    assert read_image(whole, salvage=True).notes == ()

    (tmp_path / "cut.jpg").write_bytes(cut)
    words = ["denoise", str(tmp_path / "cut.jpg"), "-m", str(tiny("denoise")), "--device", "cpu"]
    assert run(words) == 1
    whole_line = "(the end of the picture is missing); get a whole copy, or --salvage what is there\n"
    assert capsys.readouterr().err.endswith(whole_line)
    assert not (tmp_path / "cut.denoised.jpg").exists()
    assert run([*words, "--salvage"]) == 0
    assert "rows" in capsys.readouterr().err
    assert read_image(tmp_path / "cut.denoised.jpg").size == (451, 300)


def test_animations_are_refused_by_name(tmp_path):
    from restore.errors import ImageError

    frames = [PIL.Image.fromarray(frame) for frame in raw_frames(3)]
    for kind, words in (("WEBP", "animated WEBP of 3 frames"), ("PNG", "animated PNG of 3 frames"), ("GIF", "GIF")):
        out = io.BytesIO()
        frames[0].save(out, kind, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match=words):
            read_image(out.getvalue())


def dng(path: Path) -> None:
    """A linear raw of 64x48, as LibRaw reads it: black on the left, a bright gray on the right."""
    mosaic = np.zeros((48, 64), np.uint16)
    mosaic[:, 32:] = 40000
    tags = [
        (50706, "B", 4, (1, 4, 0, 0), False),  # DNGVersion
        (33421, "H", 2, (2, 2), False),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), False),  # CFAPattern: RGGB
        (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), False),  # ColorMatrix1
        (50717, "I", 1, 65535, False),  # WhiteLevel
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), False),  # AsShotNeutral
        (271, "s", 0, "Made", False),
        (272, "s", 0, "Here", False),
    ]
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=tags, metadata=None)


def test_camera_raws(tmp_path, monkeypatch):
    """With `rawpy` a raw is developed to 16 bit; without it the error says what to install."""
    from restore.errors import ImageError, TooLargeError

    pytest.importorskip("rawpy")
    dng(tmp_path / "a.dng")
    image = read_image(tmp_path / "a.dng")
    assert image.pixels.dtype == np.uint16
    assert image.pixels.shape[2] == 3
    middle = image.pixels.shape[0] // 2
    assert image.pixels[middle, 8].max() < 1000 < 20000 < image.pixels[middle, -8].min()
    assert FORMATS["raw"].suffixes == RAW_SUFFIXES
    with pytest.raises(TooLargeError):
        read_image(tmp_path / "a.dng", max_megapixels=1e-6)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError, match=r"restore-toolkit\[raw\]"):
        read_image(tmp_path / "a.dng")


def test_overwrite_and_o_agree(tiny, tmp_path):
    """-o with --overwrite replaces, and so does an output in a folder."""
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    write_image(Image(raw_frames(1)[0]), path)
    out.write_bytes(encode_image(Image(raw_frames(1, 8, 8)[0]), "png"))
    words = ["-m", str(tiny("denoise")), "--device", "cpu", "-q"]
    assert run(["denoise", str(path), "-o", str(out), *words]) == 2
    assert run(["denoise", str(path), "-o", str(out), "--overwrite", *words]) == 0
    assert read_image(out).size == (32, 24)


def test_weights_go_by_their_name(tmp_path, capsys):
    write_image(Image(raw_frames(1)[0]), tmp_path / "a.png")
    for words in (["train", "denoise", str(tmp_path), "--steps", "1"], ["denoise", str(tmp_path / "a.png")]):
        assert run([*words, "-o", str(tmp_path / "weights.txt")]) == 2
        assert "weights.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_models_says_what_a_score_means(capsys):
    text = shown(capsys, "models")
    assert "PSNR" in text and "higher" in text and "restore evaluate" in text


def test_evaluate_names_the_method_that_runs(clean_folder, denoiser):
    from restore.evaluation.baselines import choose
    from restore.evaluation.evaluate import all_methods, evaluate
    from restore.evaluation.trials import find_entries
    from restore.tasks.base import load_task

    task, seen = load_task("denoise"), []
    damage = task.spec.trial_options(sigma=(25, 25))
    methods = all_methods([], [baseline.method() for baseline in choose("denoise", ["wavelets"])[0]])
    entries = find_entries(clean_folder, None, None, 1)
    list(evaluate(entries, task, damage, methods, 0, lambda case, method: seen.append((case, method))))
    assert seen == [("sigma 25", "corrupted"), ("sigma 25", "wavelets")]


def test_hints_of_frames(tiny, tmp_path):
    """Those of a file are the hints of every frame."""
    frames = np.repeat(raw_frames(2)[..., :1], 3, axis=-1)
    hints = np.zeros((24, 32, 4), np.uint8)
    hints[8:16, 8:16] = (255, 40, 40, 255)
    write_image(Image(hints[..., :3], hints[..., 3]), tmp_path / "hints.png")
    words = ["colorize", "-", "-", "--raw", "32x24", "-m", tiny("colorize"), "--device", "cpu", "-q"]
    plain, hinted = (piped(frames.tobytes(), *words, *more) for more in ((), ("--hints", tmp_path / "hints.png")))
    assert plain.returncode == hinted.returncode == 0, hinted.stderr
    assert len(plain.stdout) == len(hinted.stdout) == frames.nbytes
    assert plain.stdout != hinted.stdout


def test_more_pages_than_are_read_are_refused(tmp_path, monkeypatch, capsys):
    """None of them is lost without a word."""
    monkeypatch.setattr("restore.images.tiff._MOST_PAGES", 3)
    for count, code in ((3, 0), (4, 1)):
        path = tmp_path / f"{count}.tif"
        with tifffile.TiffWriter(path) as writer:
            for value in range(count):
                writer.write(np.full((32, 32, 3), 60 + value, np.uint8), photometric="rgb")
        assert run(["denoise", str(path), str(tmp_path / f"{count}.out.tif"), "--device", "cpu", "-q"]) == code
        assert (tmp_path / f"{count}.out.tif").exists() == (code == 0)
    assert "more than 3 pages; split the file" in capsys.readouterr().err
