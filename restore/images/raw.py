"""Camera raws, developed by LibRaw (the package `rawpy`, the extra `raw`)."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np

from restore.errors import ImageError, install_hint
from restore.images.image import Image, SizeCheck


def read_raw(data: bytes, check_size: SizeCheck) -> tuple[Image, int]:
    """A camera raw, developed to 16-bit sRGB with the camera's white balance, upright.

    Raises ImageError where `rawpy` is not installed, or the file cannot be developed.
    """
    try:
        import rawpy
    except ImportError:
        raise ImageError(f"is a camera raw file; to read those: {install_hint('raw')}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rawpy.imread(BytesIO(data)) as raw:
                check_size(raw.sizes.iwidth, raw.sizes.iheight)
                pixels = raw.postprocess(use_camera_wb=True, output_bps=16, output_color=rawpy.ColorSpace.sRGB)
    except rawpy.LibRawError as error:
        text = error.args[0] if error.args else error
        text = text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
        raise ImageError(
            f"is a camera raw file that LibRaw cannot develop ({text}); develop it to TIFF first"
        ) from error
    notes = ("developed from the camera raw as it was shot; its EXIF is left out",)
    return Image(np.ascontiguousarray(pixels), None, "raw", notes=notes), 1
