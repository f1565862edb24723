"""Scores of a picture against the clean one. Images are (H,W,C), integers or floats with white at 1."""

from __future__ import annotations

import math

import numpy as np

from restore.colour import to_lab
from restore.errors import UsageError
from restore.pixels import BT601, to_float, to_uint8

COLOURED, COLOURED_AT_ALL = 15.0, 10.0  # CIELAB chroma: of pixels that count as coloured, and of colours that count
HUE = 30.0  # degrees that are about the same hue
LEAST_CHROMA = 2.0  # mean chroma of a picture, below which it is as good as gray


def psnr(image: np.ndarray, clean: np.ndarray, *, luma: bool = False, border: int = 0) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures.

    Args:
        image, clean: (H,W,1 or 3), any supported dtype; both are clipped and rounded to 8 bits first.
        luma: measure BT.601 luma at full precision, as super-resolution papers do (their Y has the range 16 to 235
            and a peak of 255, so errors shrink by 219/255, which is kept here to compare with them).
        border: pixels that are cut from each side.

    Raises:
        UsageError: the shapes differ, or nothing is left after the cut.
    """
    first, second = _pair(image, clean, border)
    first, second = _eight_bit(first), _eight_bit(second)
    if luma:
        first, second = _video_luma(first), _video_luma(second)
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def masked_psnr(image: np.ndarray, clean: np.ndarray, mask: np.ndarray) -> float:
    """PSNR in dB of (H,W,1 or 3) over the pixels of a mask (H,W), rounded as in `psnr`; NaN for an empty mask.

    Raises:
        UsageError: the shapes differ.
    """
    first, second = _pair(image, clean, 0)
    if mask.shape != first.shape[:2]:
        raise UsageError(f"a mask of {mask.shape} does not fit a picture of {first.shape[:2]}")
    if not mask.any():
        return math.nan
    error = float(np.mean((_eight_bit(first)[mask] - _eight_bit(second)[mask]) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def ssim(image: np.ndarray, clean: np.ndarray, *, luma: bool = False, border: int = 0) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11x11, sigma 1.5, mean over channels.

    On 8-bit rounded pictures, with `luma` on their BT.601 luma as `psnr` has it; shape (H,W,1 or 3), both
    sides at least 11 after the cut, else NaN.
    """
    from skimage.metrics import structural_similarity

    first, second = (_eight_bit(x) for x in _pair(image, clean, border))
    if min(first.shape[:2]) < 11:
        return math.nan
    if luma:
        first, second = (16 + _video_luma(x)[..., None] for x in (first, second))  # SSIM is not blind to an offset
    return float(
        structural_similarity(
            first,
            second,
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def ciede2000(image: np.ndarray, clean: np.ndarray) -> float:
    """Mean CIEDE2000 colour difference (Sharma et al. 2005) of two sRGB pictures (H,W,3); 1 is just visible."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    first, second = _pair(image, clean, 0)
    return float(np.mean(deltaE_ciede2000(rgb2lab(to_float(first)), rgb2lab(to_float(second)))))


def colorfulness(image: np.ndarray) -> float:
    """How colourful an sRGB picture (H,W,3) looks, on the 0-255 scale (Hasler and Suesstrunk 2003); 0 for gray."""
    red, green, blue = np.moveaxis(to_float(image) * 255.0, -1, 0)
    first, second = red - green, (red + green) / 2 - blue
    spread = math.hypot(float(first.std()), float(second.std()))
    return spread + 0.3 * math.hypot(float(first.mean()), float(second.mean()))


def chroma_share(image: np.ndarray, clean: np.ndarray) -> float:
    """Mean CIELAB chroma of (H,W,3) as a share of the clean picture's; NaN where that one is as good as gray."""
    first, second = (_chroma(picture).mean() for picture in _pair(image, clean, 0))
    return math.nan if second < LEAST_CHROMA else float(first / second)


def hue_hits(image: np.ndarray, clean: np.ndarray) -> float:
    """Share of the coloured pixels of `clean` (H,W,3) that have about their hue; NaN where none is coloured.

    Coloured: of a CIELAB chroma over 15; about their hue: of one over 10, at most 30 degrees away.
    """
    first, second = (rgb_to_ab(picture) for picture in _pair(image, clean, 0))
    sizes = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    coloured = sizes[1] > COLOURED
    if not coloured.any():
        return math.nan
    cosine = (first * second).sum(axis=-1) / np.maximum(sizes[0] * sizes[1], 1e-9)
    return float(((sizes[0] > COLOURED_AT_ALL) & (cosine >= math.cos(math.radians(HUE))))[coloured].mean())


def rgb_to_ab(image: np.ndarray) -> np.ndarray:
    """CIELAB a* and b* of sRGB pixels: (H,W,3) -> (H,W,2) float."""
    return to_lab(to_float(image))[..., 1:]


def mask_iou(found: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two boolean masks (H,W); 1 where both are empty."""
    if found.shape != true.shape:
        raise UsageError(f"masks of {found.shape} and {true.shape} cannot be compared")
    union = int(np.count_nonzero(found | true))
    return 1.0 if union == 0 else int(np.count_nonzero(found & true)) / union


def _chroma(image: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(rgb_to_ab(image), axis=-1))


def _pair(image: np.ndarray, clean: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    if image.shape != clean.shape or image.ndim != 3:
        raise UsageError(f"pictures of {image.shape} and {clean.shape} cannot be compared")
    height, width = image.shape[:2]
    if min(height, width) <= 2 * border:
        raise UsageError(f"a picture of {width}x{height} has nothing left after cutting {border} pixels a side")
    inner = slice(border, height - border), slice(border, width - border)
    return image[inner], clean[inner]


def _eight_bit(image: np.ndarray) -> np.ndarray:
    """Clipped and rounded to 8 bits, as float64."""
    return to_uint8(image).astype(np.float64)


def _video_luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma scaled to the 219 steps of video range, as MATLAB's rgb2ycbcr gives it (less its offset)."""
    full: np.ndarray = image[..., 0] if image.shape[-1] == 1 else image @ np.asarray(BT601)
    return full * (219.0 / 255.0)
