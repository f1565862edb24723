"""Fuzzing with atheris (not in the dependencies; `pip install atheris` where it has a wheel).

    python tests/hostile/fuzz.py images CORPUS -max_total_time=3600 -rss_limit_mb=2500 -timeout=20 -max_len=20000
    python tests/hostile/fuzz.py weights CORPUS ...

CORPUS is a folder, filled with the files of test_hostile.py at the first run. Anything but an ImageError or a
WeightsError is a finding; libFuzzer writes its input to the working folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import atheris
from safetensors.torch import save_file

with atheris.instrument_imports(
    include=["restore.images", "restore.weights", "restore.models", "json", "tifffile", "PIL"]
):
    from restore import weights
    from restore.errors import ImageError, WeightsError
    from restore.images import encode_image, read_image
    from restore.images.reading import one_line, size_check
    from restore.images.tiff import TiffReader
    from restore.models import autoencoder, build, masking, nafnet, pretrained_unet  # noqa: F401

NETWORKS: dict[str, dict[str, object]] = {
    "conv-autoencoder": {"widths": [4, 8], "blocks": [1, 1], "fold": 1},
    "nafnet": {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]},
    "hole-autoencoder": {"widths": [4, 8], "blocks": [1, 1], "finder_widths": [4], "finder_blocks": [1]},
}
TENSORS = {arch: build(arch, config).state_dict() for arch, config in NETWORKS.items()}


def images(data: bytes) -> None:
    try:
        image = read_image(data, max_megapixels=4)
        encode_image(image, "png" if image.pixels.dtype != "float32" else "tiff")
        if image.format == "tiff":
            with one_line("rows", "tiff"), TiffReader(BytesIO(data), data, size_check(4)) as reader:
                reader.pixels(reader.size[0] // 3, reader.size[0])
    except ImageError as error:
        assert "\n" not in str(error)


def header(data: bytes) -> None:
    """`data` is the architecture, its settings and the scores of a header, with zeros between."""
    arch, config, scores, *_ = [*data.decode("utf-8", "replace").split("\0"), "", ""]
    metadata = {"restore.format": "1", "task": "denoise", "variant": "", "data_terms": "", "provenance": "{}"}
    metadata |= {"arch": arch, "config": config, "scores": scores}
    with tempfile.NamedTemporaryFile(suffix=".safetensors", dir="/dev/shm") as file:
        save_file(TENSORS.get(arch, {}), file.name, metadata)
        try:
            weights.load(Path(file.name))
        except WeightsError as error:
            assert "\n" not in str(error)


def seeds(target: str) -> dict[str, bytes]:
    if target == "weights":
        return {arch: f'{arch}\0{json.dumps(config)}\0{{"x": 1.5}}'.encode() for arch, config in NETWORKS.items()}
    from test_hostile import FILES

    return FILES


TARGETS: dict[str, Callable[[bytes], None]] = {"images": images, "weights": header}

if __name__ == "__main__":
    target, corpus = sys.argv[1], Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for name, data in seeds(target).items():
            (corpus / name.replace(" ", "_")).write_bytes(data)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[target])
    atheris.Fuzz()
