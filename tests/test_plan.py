"""Which files go where: decided before anything is written, and never over an input."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.errors import UsageError
from restore.folders.names import Naming, known_suffixes, name_key
from restore.folders.plan import Job, existing_outputs, plan
from restore.images import find_images

DENOISED = Naming("denoised")
PNG = Naming("denoised", ".png")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def table(inputs, output=None, naming=DENOISED, **how) -> dict[str, str]:
    """Inputs and outputs of a plan, as text."""
    jobs = plan([inputs] if isinstance(inputs, str) else inputs, output, naming, **how).jobs
    return {str(job.input): str(job.output) for job in jobs}


def test_names_without_output(here):
    touch("a.png", "in/b.JPG", "in/sub/c.tif", "in/d.heic")
    assert table("a.png") == {"a.png": "a.denoised.png"}
    assert table("a.png", naming=Naming("x2", ".webp")) == {"a.png": "a.x2.webp"}
    assert table("in") == {"in/b.JPG": "in.denoised/b.JPG", "in/d.heic": "in.denoised/d.jpg"}
    assert table("in/", recursive=True)["in/sub/c.tif"] == "in.denoised/sub/c.tif"
    os.chdir("in")
    assert table(".")["b.JPG"] == str(here / "in.denoised/b.JPG")


def test_output_as_file_and_as_folder(here):
    touch("a.png", "in/b.png", "there/x")
    assert table("a.png", "there") == {"a.png": "there/a.png"}
    assert table("a.png", "new/") == {"a.png": "new/a.png"}
    assert table("a.png", "new/b.jpg") == {"a.png": "new/b.jpg"}
    assert table(["a.png", "in/b.png"], "new") == {"a.png": "new/a.png", "in/b.png": "new/b.png"}
    assert table(["a.png", "in"], "new") == {"a.png": "new/a.png", "in/b.png": "new/in/b.png"}
    assert table(["a.png", "a.png", "./a.png"], "new") == {"a.png": "new/a.png"}


def test_globs_mirror_the_tree_and_take_pictures_only(here):
    touch(
        "in/a.png", "in/sub/a.png", "in/.hidden/a.png", "in/.b.png", "in/notes.txt", "in/a.denoised.png", "odd[1].png"
    )
    assert table("in/**/*", "out") == {"in/a.png": "out/a.png", "in/sub/a.png": "out/sub/a.png"}
    assert table("in/*.png") == {"in/a.png": "in/a.denoised.png"}
    assert table("odd[1].png") == {"odd[1].png": "odd[1].denoised.png"}  # a name, not a pattern


def test_one_name_for_two_inputs(here):
    touch("in/a.jpg", "in/a.webp", "in/b.jpg", "in/A.bmp", "in/a.jpg.tif")
    found = table("in", "out", PNG)
    assert found["in/b.jpg"] == "out/b.png"
    assert len({name_key(Path(name)) for name in found.values()}) == len(found) == 5
    assert found["in/a.jpg.tif"] == "out/a.jpg.png"  # the plain name is its own
    assert found["in/a.jpg"] == "out/a.jpg~2.png"
    assert found["in/a.webp"] == "out/a.webp.png"
    assert table("in/a.*", None, PNG)["in/a.webp"] == "in/a.webp.denoised.png"


def test_a_folder_that_is_called_like_a_picture(here):
    touch("in/a.heic", "in/a.jpg/b.png")
    assert table("in", recursive=True) == {
        "in/a.heic": "in.denoised/a.heic.jpg",
        "in/a.jpg/b.png": "in.denoised/a.jpg/b.png",
    }


def test_what_changes_its_format_takes_nobodys_name(here):
    touch("in/a.jpg", "in/a.png", "in/b.jpg")
    jobs = {job.input.name: job for job in plan(["in"], "out", DENOISED).jobs}
    assert jobs["b.jpg"].output_as(".png") == Path("out/b.png")
    assert jobs["a.jpg"].output_as(".png") == Path("out/a.jpg.png")


def test_earlier_outputs_are_left_out_and_originals_never(here):
    touch("in/a.jpg", "in/a.denoised.png", "in/a.x3.jpg", "in/a.jpg.denoised.png", "in/a.denoised~2.png")
    touch("in/only.denoised.png", "in/sub/c.png", "in/sub.x2/c.png", "in/trip.x2/d.png", "in/out/a.jpg")
    planned = plan(["in"], "in/out", DENOISED, recursive=True)
    kept = {str(job.input) for job in planned.jobs}
    assert kept == {"in/a.jpg", "in/only.denoised.png", "in/sub/c.png", "in/trip.x2/d.png"}
    assert planned.left_out == 6
    assert table("in/a.x3.jpg") == {"in/a.x3.jpg": "in/a.x3.denoised.jpg"}  # asked for by name
    assert {"denoised", "x2", "x3", "x4", "corrupted"} <= known_suffixes()


def test_links_in_a_circle_end_and_lead_to_no_output(here):
    touch("in/sub/a.png", "out/sub/a.png")
    os.symlink("..", "in/sub/up")
    os.symlink("../out", "in/results")
    os.symlink("nowhere", "in/dangling.png")
    os.symlink("self.png", "in/self.png")
    assert table("in", "out", recursive=True) == {"in/sub/a.png": "out/sub/a.png"}
    assert table("in", ".", recursive=True).keys() == {"in/sub/a.png", "in/results/sub/a.png"}  # outputs go above


@pytest.mark.parametrize(
    ("inputs", "output", "says"),
    [
        (["missing.png"], None, "no such file"),
        (["*.gif"], None, "no files match this pattern"),
        (["empty"], None, "no pictures here; -r"),
        (["in/a.png"], "in/a.png", "is an input"),
        (["in/a.png"], "link.png", "is the input in/a.png under another name"),
        (["in/a.png"], "hard.png", "under another name"),
        (["in"], "in", "same folder"),
        (["in"], "inlink", "same folder"),
        (["in/a.png"], "out.xyz", "no format that can be written"),
        (["in/a.png"], "out.heic", "no format that can be written"),
        (["in"], "file.png", "is not a folder"),
        (["in"], "file.png/deeper", "is not a folder"),
        (["in", "in2"], "file.png", "is not a folder"),
        (["in", "-"], None, "stands for one picture"),
        (["in"], "-", "stands for one picture"),
        (["in/a.png", "in2/a.png"], "-", "stands for one picture"),
        (["-"], "in", "is a folder"),
        (["in2/named"], None, "is no picture this program reads"),
        (["in2/nameless"], None, "says no picture format"),
        (["in3"], "linked", "under another name"),
    ],
)
def test_refused(here, inputs, output, says):
    touch("in/a.png", "in2/a.png", "in2/named", "in2/nameless", "file.png", "in3/a.png", "in3/b.png")
    Path("in2/nameless").write_bytes(b"\x89PNG\r\n\x1a\n")
    Path("empty").mkdir()
    os.symlink("in/a.png", "link.png")
    os.link("in/a.png", "hard.png")
    os.symlink("in", "inlink")
    Path("linked").mkdir()
    os.link("in3/b.png", "linked/a.png")  # a file's output is another's input
    with pytest.raises(UsageError, match=says):
        plan(inputs, output, DENOISED)


def test_streams(here):
    touch("a.png")
    assert plan(["-"], None, DENOISED).jobs == [Job(None, None)]
    assert plan(["-"], "b.jpg", DENOISED).jobs == [Job(None, Path("b.jpg"))]
    assert plan(["a.png"], "-", DENOISED).jobs == [Job(Path("a.png"), None)]


def test_a_folder_that_cannot_be_listed_is_told(here, monkeypatch):
    touch("in/a.png", "in/shut/b.png")
    scan = os.scandir

    def scandir(path):  # root may list anything, so permissions would show nothing here
        if os.path.basename(path) == "shut":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    planned = plan(["in"], None, DENOISED, recursive=True)
    assert [str(job.input) for job in planned.jobs] == ["in/a.png"]
    assert len(planned.unreadable) == 1
    assert "in/shut" in planned.unreadable[0]
    assert "permission" in planned.unreadable[0]


def test_many_files(here):
    """Listing, naming and checking, with every output there already: the time grows as the number of files does."""
    for folder in range(5):
        Path(f"in/{folder}").mkdir(parents=True)
        Path(f"out/{folder}").mkdir(parents=True)
        for number in range(1000):
            for place in ("in", "out"):
                os.mknod(f"{place}/{folder}/IMG_{number:05}.jpg")
    start = time.process_time()
    jobs = plan(["in"], "out", DENOISED, recursive=True).jobs
    assert len(existing_outputs(jobs)) == 5000
    assert time.process_time() - start < 1.5  # about 0.3 s; more than 10 s if each were compared with all


# Names that people and machines give: any letter but what no file system takes, and what our own outputs look like.
letters = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=6)
stems = st.one_of(
    letters, st.sampled_from(["a", "A", "-r", "--", "a.jpg", "a.denoised", "a~2", "a b", "é", "e\u0301", "*", "[a]"])
)
files = st.builds("{}{}".format, stems, st.sampled_from([".png", ".PNG", ".jpg", ".tif", ".txt", ".jpg.png", ".heic"]))
folders = st.lists(st.one_of(stems, st.sampled_from(["sub", "sub.denoised", "out", ".hidden"])), max_size=2)
trees = st.sets(st.tuples(folders.map(tuple), files), min_size=1, max_size=12)


def tree_of(places, top: Path) -> None:
    for parts, name in places:
        folder = top.joinpath(*parts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / name, "xb") as file:
                file.write(b"x")
        except OSError:  # ".", "..", a file of that name, too many bytes
            continue


@settings(max_examples=100, deadline=None)
@given(trees, st.sampled_from([None, ".png", ".tif"]), st.sampled_from([None, "out", "in/out"]))
def test_any_tree(places, extension, output):
    """Every picture is restored once or was made by us, no two to one file, none to an input, and the same again."""
    naming = Naming("denoised", extension)
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder, "in")
        top.mkdir()
        tree_of(places, top)
        to = None if output is None else str(Path(folder, output))
        planned = plan([str(top)], to, naming, recursive=True, allow_empty=True)
        inputs = [job.input for job in planned.jobs]
        outputs = [job.output for job in planned.jobs]
        found = find_images(top)
        assert len(set(inputs)) == len(inputs)
        assert set(inputs) <= set(found)
        assert len(found) - len(inputs) == planned.left_out
        made = known_suffixes()
        for path in set(found) - set(inputs):
            assert any(f".{suffix}" in str(path) for suffix in made) or path.is_relative_to(to or "/nowhere")
        assert len({name_key(path) for path in outputs}) == len(outputs)
        assert not set(outputs) & set(found) - set(Path(to).rglob("*") if to else ())
        for path in outputs:
            with suppress(OSError):  # a file stands where a folder is needed, which restoring reports
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"y")
        again = plan([str(top)], to, naming, recursive=True, allow_empty=True)
        assert again.jobs == planned.jobs
        assert all(path.read_bytes() == b"x" for path in inputs)
