"""A process of little memory that reads pictures from stdin, and says of each what came of it.

In: four bytes of length (big-endian) and the bytes of a file, again and again. Out: a line of JSON for each, of the
outcome ("read" or the error), the class of an exception that is no ImageError, the notes, the seconds of computing,
and by how many MiB the process grew meanwhile. Address space and computing time are limited by the kernel: a file that
takes more ends the process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from io import BytesIO
from pathlib import Path

from restore.errors import ImageError
from restore.images import encode_image, read_image
from restore.images.reading import one_line, size_check
from restore.images.tiff import TiffReader

ROOM = 1536 << 20  # bytes of address space beside what the libraries take
SECONDS = 120  # of computing, of all files together


def status(field: str) -> float:
    """A size in /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def probe(data: bytes) -> dict[str, object]:
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark of memory starts anew
    before, start = status("VmHWM"), time.process_time()
    kind, notes, outcome = "", (), "read"
    try:
        image = read_image(data)
        notes = image.notes
        encode_image(image, "jpeg" if image.format == "heic" else None)
        if image.format == "tiff":
            with one_line("rows", "tiff"), TiffReader(BytesIO(data), data, size_check()) as reader:
                reader.pixels(reader.size[0] // 3, reader.size[0])
    except ImageError as error:
        outcome = str(error)
    except Exception as error:
        kind, outcome = type(error).__name__, repr(error)
    seconds, grown = time.process_time() - start, status("VmHWM") - before
    return {"outcome": outcome, "kind": kind, "notes": notes, "seconds": seconds, "grown": grown}


def main() -> None:
    read_image(encode_image(read_image(b"P5 1 1 255\n\0"), "png"))  # what is imported late is imported now
    limit = int(status("VmSize") * 2**20) + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    while head := sys.stdin.buffer.read(4):
        print(json.dumps(probe(sys.stdin.buffer.read(int.from_bytes(head, "big")))), flush=True)


if __name__ == "__main__":
    main()
