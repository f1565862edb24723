"""The HTTP API over a real socket: pictures, limits, jobs, and clients that misbehave."""

from __future__ import annotations

import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_tools import Limits, Served, serving

from restore import load
from restore.cli import app
from restore.images import Image, encode_image, read_image
from restore.serve.jobs import Job, Jobs
from restore.serve.limits import Admission, Refused
from restore.serve.service import Output
from restore.tasks import TASKS

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="module")
def models(tiny):
    return {task: str(tiny(task)) for task in TASKS}


@pytest.fixture(scope="module")
def server(models):
    with serving(models) as served:
        yield served


@pytest.fixture
def slow(models, monkeypatch):
    """A server that takes about two seconds for a picture, in tiles, and takes on little."""
    from restore.serve.restorers import WatchedRestorer

    compute = WatchedRestorer._restore_tiles

    def slowly(self, *arguments):
        time.sleep(0.05)
        return compute(self, *arguments)

    monkeypatch.setattr(WatchedRestorer, "_restore_tiles", slowly)
    limits = Limits(max_bytes=2_000_000, max_megapixels=1, max_queue=3, per_client=2, seconds=1, body_seconds=1)
    with serving(models, limits, tile=64) as served:
        yield served


def png(array: np.ndarray) -> bytes:
    return encode_image(Image(array), "png")


@pytest.fixture(scope="module")
def photo_png(photo) -> bytes:
    return png(photo[:200, :300])


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told["status"] == status and "\n" not in told["detail"]
    return told["detail"]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_gives_the_file_that_the_command_line_writes(server, models, task, tmp_path, monkeypatch):
    """Bytes, format, metadata and name are the same, for a JPEG with EXIF and for a PNG in colour and gray."""
    folder = {"inpaint": "covered", "dewatermark": "marked", "colorize": "gray", "super-resolve": "small"}
    picture = read_image(SAMPLES / folder.get(task, "noisy") / "chelsea.png")
    exif = b"II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\x05\0\0\0\x1a\0\0\0\0\0\0\0Acme\0"
    for name, data in {
        "photo.jpg": encode_image(Image(picture.pixels[:128, :160], exif=exif), "jpeg", quality=90),
        "scan.png": png(picture.pixels[:96, :96]),
    }.items():
        (tmp_path / name).write_bytes(data)
        code = app.run([task, "-m", models[task], "--device", "cpu", "--precision", "fp32", "-q", str(tmp_path / name)])
        assert code == 0
        (written,) = set(tmp_path.iterdir()) - {tmp_path / name}
        answer = server.post(task, data, name)
        assert answer.status_code == 200, answer.text
        assert f'filename="{written.name}"' in answer.headers["content-disposition"]
        assert answer.content == written.read_bytes()
        written.unlink()
        (tmp_path / name).unlink()


def test_options_of_the_query_have_an_effect(server, photo_png):
    plain = server.post("super-resolve", photo_png).content
    assert read_image(server.post("super-resolve", photo_png, params={"scale": 4}).content).size == (1200, 800)
    assert server.post("super-resolve", photo_png, params={"strength": 0.5}).content != plain
    as_jpeg = server.post("denoise", photo_png, params={"ext": "jpg", "quality": 40})
    assert as_jpeg.headers["content-type"] == "image/jpeg" and read_image(as_jpeg.content).quality == 40
    assert server.post("denoise", photo_png, params={"strength": 0}).status_code == 200
    half = encode_image(Image(read_image(photo_png).pixels), "jpeg", quality=90)[:9000]
    assert "--salvage what is there" in refused(server.post("denoise", half), 422)
    salvaged = server.post("denoise", half, params={"salvage": True})
    assert read_image(salvaged.content).size == (300, 200) and "truncated" in salvaged.headers["x-restore-message"]
    deep = png(read_image(photo_png).pixels.astype(np.uint16) * 257)
    kept = server.post("denoise", deep, params={"ext": "jpg"})
    assert "written as PNG instead" in kept.headers["x-restore-message"]
    assert read_image(kept.content).pixels.dtype == np.uint16


def test_the_body_may_be_the_picture_itself(server, photo_png):
    answer = server.client.post("/api/v1/denoise", content=photo_png, params={"name": 'übung "1".png'})
    assert answer.status_code == 200
    assert "UTF-8''%C3%BCbung%20%221%22.denoised.png" in answer.headers["content-disposition"]
    assert answer.content == server.post("denoise", photo_png).content


def test_a_mask_is_where_pixels_change(server, photo, photo_png):
    mask = np.zeros((200, 300, 1), np.uint8)
    mask[50:80, 60:100] = 255
    answer = server.post("inpaint", photo_png, mask=png(mask))
    changed = (read_image(answer.content).pixels != photo[:200, :300]).any(axis=-1)
    assert changed.any() and not changed[mask[..., 0] == 0].any()
    assert "does not fit" in refused(server.post("inpaint", photo_png, mask=png(mask[:20])), 422)
    assert "takes no mask" in refused(server.post("denoise", photo_png, mask=png(mask)), 422)


def test_hints_are_colours_that_are_known(server, photo, tiny):
    """What colorize gives with hints is what it gives in Python; other tasks take none."""
    gray = png(np.ascontiguousarray(photo[:60, :80, :1]))
    hints = np.zeros((60, 80, 4), np.uint8)
    hints[20:40, 20:40] = (200, 30, 30, 255)

    def post(task, dots):
        sent = encode_image(Image(dots[..., :3], alpha=dots[..., 3]), "png")
        return server.client.post(f"/api/v1/{task}", files={"file": ("a.png", gray), "hints": ("h.png", sent)})

    told, untold = (read_image(one.content).pixels for one in (post("colorize", hints), server.post("colorize", gray)))
    assert not np.array_equal(told, untold)
    restorer = load("colorize", str(tiny("colorize")), "cpu", "fp32")
    np.testing.assert_array_equal(told, restorer(read_image(gray).pixels, hints=hints))
    assert "does not fit" in refused(post("colorize", hints[:30]), 422)
    assert "show no colour" in refused(post("colorize", 0 * hints), 422)
    assert "takes no hints" in refused(post("denoise", hints), 422)
    assert "takes no mask" in refused(server.post("colorize", gray, mask=gray), 422)


def test_auto_does_and_says_what_the_command_line_does(photo, tmp_path, capsys):
    """The same files, and the same decisions with their reasons, which `Accept: application/json` only says."""
    gray = cv2.cvtColor(photo[:128, :128], cv2.COLOR_RGB2GRAY)[..., None]
    pictures = {
        "noisy.png": png(read_image(SAMPLES / "noisy" / "chelsea.png").pixels[20:148, 100:228]),
        "healthy.jpg": encode_image(Image(gray), "jpeg", quality=97),
    }
    for name, data in pictures.items():
        (tmp_path / name).write_bytes(data)
    command = ["auto", str(tmp_path), "-o", str(tmp_path / "out"), "--device", "cpu", "--precision", "fp32", "--json"]
    assert app.run(command) == 0
    told = {Path(one["input"]).name: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    with serving() as served:
        for name, data in pictures.items():
            record = told[name]
            examined = served.post("auto", data, name, headers={"accept": "application/json"}).json()
            assert (examined["result"], examined["steps"]) == ("examined", record["steps"])
            done = served.ended(served.begin("auto", data))
            assert done["steps"] == record["steps"] and done["message"] == record["note"]
            result = served.client.get(f"{done['url']}/result")
            assert result.content == (tmp_path / "out" / name).read_bytes()
            assert result.headers["x-restore-result"] == record["status"]
            assert served.client.get(f"{done['url']}/mask").status_code == 200
        assert examined["message"].startswith("would be copied: denoise: noise ")
        assert [told[name]["steps"][0]["done"] for name in pictures] == [True, False]
        larger = served.post("auto", png(gray[:32, :32]), params={"enlarge": 2, "colorize": True})
        assert read_image(larger.content).pixels.shape == (64, 64, 3)
        assert "takes no mask" in refused(served.post("auto", pictures["noisy.png"], mask=pictures["noisy.png"]), 422)
        assert "unknown option 'strength'" in refused(served.post("auto", b"", params={"strength": 1}), 422)


def test_auto_can_be_watched_and_given_up(slow, photo):
    data = png(photo[:100, :140])
    seen = events(slow, slow.begin("auto", data))
    shares = [one["share"] for one in seen if one["stage"] == "computing"]
    assert len(shares) > 3 and shares == sorted(shares) and seen[-1]["stage"] == "done"
    slow.until(lambda: slow.gauge("pictures_in_flight") == 0, 2)
    job = slow.begin("auto", data)
    slow.until(lambda: slow.client.get(job["url"]).json()["share"] > 0)
    slow.client.delete(job["url"])
    assert slow.ended(job, 1)["stage"] == "cancelled"


def test_json_says_what_was_found(server, photo_png):
    mask = np.zeros((200, 300, 1), np.uint8)
    mask[:100] = 255
    found = server.post("inpaint", photo_png, mask=png(mask), headers={"accept": "application/json"}).json()
    assert found["mask_share"] == 0.5 and found["result"] == "examined"
    assert (found["width"], found["height"]) == (300, 200)


def test_nothing_found_gives_the_bytes_back(server, photo_png):
    assert "marks nothing" in refused(
        server.post("inpaint", photo_png, mask=png(np.zeros((200, 300, 1), np.uint8))), 422
    )
    answer = server.post("colorize", photo_png)  # which has colours already
    assert answer.content == photo_png and answer.headers["x-restore-result"] == "copied"


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd.png", "..\\..\\boot.png", "/etc/shadow.png", "a\r\nx: y.png", "\0.png", ".png", "x" * 900],
)
def test_names_of_clients_are_only_names(server, photo_png, name):
    answer = server.client.post("/api/v1/denoise", content=photo_png, params={"name": name[:255]})
    given = answer.headers["content-disposition"]
    assert answer.status_code == 200 and "/" not in given and "\\" not in given and ".." not in given
    assert "x" not in answer.headers


def test_the_tasks_list_their_options(server):
    listed = {task["name"]: task for task in server.client.get("/api/v1/tasks").json()["tasks"]}
    assert list(listed) == [*TASKS, "auto"]
    assert [listed[task]["max_strength"] for task in ("denoise", "inpaint", "auto")] == [2.0, 1.0, None]
    assert {"name": "scale", "type": "int", "default": 2, "choices": [2, 3, 4]}.items() <= {
        name: value for name, value in listed["super-resolve"]["options"][0].items() if name != "help"
    }.items()
    paths = server.client.get("/openapi.json").json()["paths"]
    for task, about in listed.items():
        known = {parameter["name"] for parameter in paths[f"/api/v1/{task}"]["post"]["parameters"]}
        assert {option["name"] for option in about["options"]} | {"tta", "ext"} <= known
        assert ("strength" in known) == (about["max_strength"] is not None)


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 60000 x 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


def test_what_is_refused(server, photo_png):
    assert "3600 megapixels" in refused(server.post("denoise", bomb()), 413)
    assert "no picture" in refused(server.post("denoise", b"<html>"), 422)
    assert "GIF" in refused(server.post("denoise", b"GIF89a..."), 422)
    assert "empty" in refused(server.client.post("/api/v1/denoise"), 422)
    assert "damaged" in refused(server.post("denoise", photo_png[:5000]), 422)
    assert "did you mean 'denoise'" in refused(server.post("denoize", photo_png), 404)
    assert "strenght" in refused(server.post("denoise", photo_png, params={"strenght": 1}), 422)
    for task, name, value, why in (
        ("super-resolve", "scale", "7", "must be one of 2, 3, 4; got 7"),
        ("super-resolve", "scale", "two", "must be a whole number; got two"),
        ("denoise", "strength", "2.1", "goes up to 2; got 2.1"),
        ("denoise", "strength", "nan", "goes up to 2; got nan"),
        ("denoise", "sigma", "loud", "must be a number; got loud"),
        ("denoise", "tta", "maybe", "must be true or false; got maybe"),
        ("denoise", "name", "a" * 300, f"has at most 255 characters; got {'a' * 40}"),
        ("inpaint", "grow", "-1", "starts at 0; got -1"),
    ):
        for path in (task, "jobs"):
            params = {name: value} | ({"task": task} if path == "jobs" else {})
            assert refused(server.post(path, photo_png, params=params), 422) == f"{name} {why}"
    assert refused(server.post("jobs", photo_png), 422) == "task has to be given"
    assert "quality does nothing" in refused(
        server.post("denoise", photo_png, params={"ext": "png", "quality": 9}), 422
    )
    wrong = server.client.post("/api/v1/denoise", files={"picture": ("a.png", photo_png)})
    assert "known: file, mask" in refused(wrong, 422)
    torn = server.client.post(
        "/api/v1/denoise", content=b"--x\r\nnonsense", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert torn.status_code in (400, 422)
    refused(server.client.get("/api/v1/jobs/none"), 404)
    refused(server.client.get("/nowhere"), 404)
    refused(server.client.get("/static/../app.py"), 404)


def test_limits_have_their_status(slow, photo):
    picture, large = png(photo[:200, :300]), np.zeros((1001, 1000, 1), np.uint8)
    assert "2 MB" in refused(slow.post("denoise", bytes(2_100_000)), 413)
    chunks = (bytes(500_000) for _ in range(8))  # without a length
    refused(slow.client.post("/api/v1/denoise", content=chunks), 413)
    assert "1.001 megapixels, at most 1 " in refused(slow.post("denoise", png(large)), 413)
    jxl = refused(slow.post("denoise", encode_image(Image(large), "jxl")), 413)  # whose header Pillow does not read
    assert "1000 x 1001" in jxl and "--" not in jxl
    assert "4" in refused(slow.post("super-resolve", png(large[:900]), params={"scale": 4}), 413)
    jobs = [slow.begin("denoise", picture) for _ in range(2)]
    answer = slow.post("denoise", picture)
    refused(answer, 429)
    assert answer.headers["retry-after"] == "1"
    for job in jobs:
        assert slow.ended(job)["stage"] == "done"
    with pytest.raises(AssertionError):
        slow.until(lambda: slow.gauge("pictures_in_flight"), 0.1)
    big = png(photo)  # more than a second
    assert "job" in refused(slow.post("denoise", big), 504)
    slow.until(lambda: slow.gauge("pictures_in_flight") == 0, 2)  # it was given up


def test_what_is_sent_beside_a_picture_costs_no_more_than_the_picture(server, photo_png):
    """Masks are as large as their pictures, previews have the limits of all pictures, masks may grow by any number."""
    mask = np.zeros((200, 300, 1), np.uint8)
    mask[:3, :3] = 255
    assert "does not fit" in refused(server.post("inpaint", photo_png, mask=bomb()), 422)
    assert "3600 megapixels" in refused(server.client.post("/api/v1/preview", content=bomb()), 413)
    assert "damaged" in refused(server.client.post("/api/v1/preview", content=photo_png[:5000]), 422)
    grown = server.post("inpaint", photo_png, mask=png(mask), params={"grow": 10**9})
    assert "covers the whole picture" in refused(grown, 422)
    server.client.request("X" * 50, "/healthz")
    assert "X" * 50 not in server.client.get("/metrics").text


def test_a_full_queue_is_503(slow, photo_png):
    admission = slow.app.state.server.admission
    with admission.admitted("a", 1), admission.admitted("b", 1), admission.admitted("c", 1):
        answer = slow.post("denoise", photo_png)
        refused(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
    assert slow.post("denoise", photo_png[:100]).status_code == 422  # again taken on


def test_clients_that_vanish_or_dawdle_cost_nothing(slow, photo):
    host, port = slow.url.removeprefix("http://").split(":")
    head = (
        b"POST /api/v1/denoise HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as half:
        half.sendall(head + bytes(1000))
    with socket.create_connection((host, int(port))) as dawdling:
        dawdling.sendall(head + bytes(1000))
        assert b" 408 " in dawdling.recv(100)
    data = png(photo)
    whole = head.replace(b"100000", str(len(data)).encode()) + data
    with socket.create_connection((host, int(port))) as gone:
        gone.sendall(whole)
        slow.until(lambda: slow.gauge("pictures_in_flight") == 1)
    slow.until(lambda: slow.gauge("pictures_in_flight") == 0, 1.5)  # it takes two


def events(served: Served, job: dict) -> list[dict]:
    with served.client.stream("GET", f"{job['url']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]


def test_a_job_tells_its_progress_and_keeps_its_result(slow, photo_png):
    seen = events(slow, slow.begin("denoise", photo_png))
    shares = [one["share"] for one in seen if one["stage"] == "computing"]
    assert len(shares) > 3 and shares == sorted(shares)
    assert seen[-1]["stage"] == "done" and seen[-1]["file"] == "a.denoised.png" and seen[-1]["bytes"] > 1000
    result = slow.client.get(f"{seen[-1]['url']}/result")
    assert read_image(result.content).size == (300, 200)
    assert slow.client.delete(seen[-1]["url"]).status_code == 200  # forgets it
    refused(slow.client.get(f"{seen[-1]['url']}/result"), 404)


def test_a_job_can_be_cancelled(slow, photo):
    job = slow.begin("denoise", png(photo))
    slow.until(lambda: slow.client.get(job["url"]).json()["share"] > 0)
    slow.client.delete(job["url"])
    assert slow.ended(job, 1)["stage"] == "cancelled"
    refused(slow.client.get(f"{job['url']}/result"), 410)
    slow.until(lambda: slow.gauge("pictures_in_flight") == 0, 1)


def test_a_job_ends_once(monkeypatch):
    """One whose time is over while its result is written has failed, and only that; a job that is done stays so."""
    output = Output(b"result", "a.png", "png", "restored", (1, 1), 0.1, mask=b"mask")
    jobs, admission = Jobs(Limits()), Admission(Limits())
    late, done = (jobs.create("denoise", "a.png") for _ in range(2))
    keep = Job.keep
    monkeypatch.setattr(Job, "keep", lambda self, output: (self is late and jobs.expire(late), keep(self, output))[1])
    for job in (late, done):
        with admission.admitted("a", 1) as place:
            place.keep()
            jobs.begin(job, future := Future(), place)
        future.set_result(output)
    jobs.expire(done)
    assert (late.state["stage"], late.state["status"], late.output) == ("failed", 504, None)
    with pytest.raises(Refused, match="took longer"):
        jobs.finished(late.id)
    assert done.state["stage"] == "done" and "error" not in done.state and admission.count == 0
    assert sorted(path.name for path in done.path.parent.iterdir()) == sorted([done.id, f"{done.id}.mask"])
    jobs.close()


def test_jobs_give_masks_and_an_archive(server, photo_png):
    mask = np.zeros((200, 300, 1), np.uint8)
    mask[:50] = 255
    began = time.time()
    jobs = [server.begin("inpaint", photo_png, png(mask)), server.begin("inpaint", photo_png, png(mask))]
    states = [server.ended(job) for job in jobs]
    assert [state["stage"] for state in states] == ["done", "done"]
    found = read_image(server.client.get(f"{jobs[0]['url']}/mask").content).pixels
    np.testing.assert_array_equal(found, mask)
    answer = server.client.get("/api/v1/archive", params={"id": [job["id"] for job in jobs]})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.inpainted.png", "a.inpainted~2.png"]
        assert all(one.date_time >= time.localtime(began - 2)[:6] for one in archive.infolist())
        assert archive.read("a.inpainted.png") == server.client.get(f"{jobs[0]['url']}/result").content
    refused(server.client.get("/api/v1/archive", params={"id": [jobs[0]["id"], "none"]}), 404)
    ids, folders = [jobs[0]["id"], jobs[1]["id"], jobs[0]["id"]], ["scans/1", "scans/2/", "/../..\\ü/./C:"]
    answer = server.client.get("/api/v1/archive", params={"id": ids, "folder": folders})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["scans/1/a.inpainted.png", "scans/2/a.inpainted.png", "ü/C:/a.inpainted.png"]
    ids, folders = [jobs[0]["id"], jobs[1]["id"]], ["2026.07.15 in the mountains", "2026.07.15 in the valley"]
    answer = server.client.get("/api/v1/archive", params={"id": ids, "folder": folders})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert [str(Path(name).parent) for name in archive.namelist()] == folders
    failed = server.ended(server.begin("inpaint", b"nonsense"))
    assert failed["stage"] == "failed" and failed["status"] == 422
    refused(server.post("jobs", photo_png, params={"task": "inpaint", "x": 1}), 422)


def test_results_are_kept_for_a_while(models, photo_png):
    with serving(models, Limits(keep_seconds=0.5)) as served:
        job = served.begin("denoise", photo_png)
        assert served.ended(job)["stage"] == "done"
        served.until(lambda: served.client.get(job["url"]).status_code == 404, 5)


def test_a_token_is_demanded(models, photo_png):
    with serving(models, token="s3cret77") as served:
        assert served.post("denoise", photo_png).status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "restore_token=wrong"}):
            with httpx.Client(base_url=served.url, headers=headers, trust_env=False) as other:
                for path in ("/", "/metrics", "/docs", "/openapi.json", "/static/app.js", "/?token=wrong"):
                    refused(other.get(path), 401)
                refused(other.post("/api/v1/denoise", content=photo_png), 401)
                assert other.get("/healthz").status_code == 200
        with httpx.Client(base_url=served.url, trust_env=False, follow_redirects=True) as page:
            answer = page.get("/?token=s3cret77")
            assert answer.status_code == 200 and "token" not in str(answer.url)
            assert page.get("/metrics").status_code == 200


def test_other_pages_cannot_use_it(server, photo_png):
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"host": "evil.example"},  # DNS rebinding
    ):
        refused(server.client.post("/api/v1/denoise", content=photo_png, headers=headers), 403)
    own = server.client.post("/api/v1/denoise", content=photo_png, headers={"origin": server.url})
    assert own.status_code == 200 and not [name for name in own.headers if name.startswith("access-control")]


def test_metrics_count(server, photo_png):
    def count() -> int:
        text = server.client.get("/metrics").text
        line = next((line for line in text.splitlines() if 'pictures_total{task="denoise"}' in line), "0")
        return int(line.split()[-1])

    before = count()
    server.post("denoise", photo_png)
    assert count() == before + 1
    assert 'route="/api/v1/denoise",status="200"' in server.client.get("/metrics").text
    assert server.client.get("/healthz").json() == {"status": "ok"}


def test_many_at_once_get_their_own_results(server, photo):
    pictures = [png(photo[n : n + 40, n : n + 50 + n % 3]) for n in range(24)]
    alone = [server.post("denoise", data).content for data in pictures]
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda data: server.post("denoise", data).content, pictures))
    assert together == alone


options = st.dictionaries(
    st.sampled_from(
        ["strength", "tta", "ext", "quality", "scale", "strip_metadata", "name", "grow", "saturation", "z"]
    ),
    st.one_of(st.integers(-3, 101).map(str), st.floats().map(str), st.text(max_size=8), st.just("true")),
    max_size=3,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*TASKS, "jobs", "preview"]), options, st.binary(max_size=300), st.integers(0, 2), st.data())
def test_no_body_and_no_option_breaks_it(server, task, query, noise, kind, data):
    good = SMALL_PNG
    body = [noise, good, good[: data.draw(st.integers(0, len(good)))] + noise][kind]
    params = {**query, "task": "denoise"} if task == "jobs" else query
    answer = server.client.post(f"/api/v1/{task}", content=body, params=params)
    assert answer.status_code in (200, 202, 400, 413, 422), answer.text
    if answer.status_code >= 400:
        assert answer.json()["detail"]
    assert server.client.get("/healthz").status_code == 200


SMALL_PNG = png(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3))


def test_ctrl_c_ends_it_and_tells_the_jobs(tiny, photo, tmp_path):
    """Within two seconds, while a picture is computed that takes much longer."""
    command = [sys.executable, "-m", "restore", "serve", "--port", "0", "--device", "cpu", "--precision", "fp32"]
    command += ["-m", f"denoise={tiny('denoise')}", "-t", "64"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        url = line.split()[1].rstrip("/")
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            served = Served(url, client, None)
            job = served.begin("denoise", png(np.tile(photo, (10, 10, 1))), tta=True)
            told: list[dict] = []
            listener = threading.Thread(target=lambda: told.extend(events(served, job)))
            listener.start()
            served.until(lambda: any(one["share"] > 0 for one in [client.get(job["url"]).json()]))
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert time.monotonic() - start < 2.5  # and a loaded machine's half a second
            listener.join(5)
        assert told[-1]["error"] == "the server was stopped"
        rest = process.stderr.read()
    assert "Traceback" not in rest and "interrupted" in rest


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's own business")
def test_a_signal_ends_it_in_the_background_of_a_script():
    """There SIGINT is ignored until the server listens to it: no KeyboardInterrupt comes, and it ends all the same."""
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "restore", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = process.stderr.readline().split()[1]
            with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
                assert client.get("/healthz").status_code == 200
            # Of thousands of pictures the address is longer than httpx makes any, and browsers do.
            query = "&".join(["id=" + "x" * 24 + "&folder=photographs%2F2026"] * 10_000)
            connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
            connection.request("GET", f"/api/v1/archive?{query}")
            assert connection.getresponse().status == 404  # no such job
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert "interrupted" in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "--token"),
        (["--host", "0.0.0.0", "--token", "short"], "at least 8"),
        (["-m", "denoise"], "TASK=VARIANT"),
        (["-m", "denoise=nothing.safetensors"], "no such weights"),
        (["--device", "cuda:77"], "cuda:77"),
    ],
)
def test_wrong_calls_exit_2(flags, said, capsys):
    assert app.run(["serve", "--port", "0", *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_said(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert app.run(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another port" in capsys.readouterr().err
