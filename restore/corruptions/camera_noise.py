"""A photograph as a camera makes it out of too little light: noise on the sensor, then the camera's own processing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from restore.colour import from_linear, to_linear
from restore.corruptions.base import Corrupted, check_range, pick
from restore.corruptions.demosaicing import DEMOSAICINGS, demosaic, mosaic
from restore.pixels import luma, to_dtype, to_float

SMOOTHED, SHARPENED = 0.3, 0.25  # share of the cameras that do so
_GRID = np.linspace(0.0, 1.0, 257, dtype=np.float32)


@dataclass(frozen=True)
class CameraNoiseParams:
    """Parameters of a camera and its noise."""

    gains: tuple[float, float]  # white balance of red and blue, relative to green
    mixing: tuple[float, ...]  # 9 numbers, a matrix row by row, from linear sRGB to the colours of the sensor
    tone: float  # strength of the S-shaped tone curve, from 0 to 1
    shot: float  # shot and read: the variance of the sensor's noise is `shot * light + read**2`, with white at 1
    read: float
    red: tuple[int, int]  # row and column of red in the Bayer pattern, 0 or 1
    demosaicing: str  # one of DEMOSAICINGS
    smoothing: float  # standard deviation in pixels of the chroma blur by which the camera removes its noise; 0: none
    sharpening: float  # weight of an unsharp mask of 1 pixel
    seed: int  # of the noise


@dataclass(frozen=True)
class CameraNoise:
    """Shot and read noise in linear light on a Bayer mosaic, followed by what cameras do with it.

    As Brooks et al. 2019, "Unprocessing Images for Learned Raw Denoising", with the noise model of Foi et al. 2008:
    the picture is taken back to the sensor (tone curve, gamma, colour matrix, white balance), gets its noise there,
    and is developed again with one of several demosaicings; some of the cameras then smooth colour, some sharpen.

    Args:
        shot: (lowest, highest) slope of the variance, drawn on a logarithmic scale; 1e-4 is about ISO 100, 0.02
            about ISO 12,800 of a small sensor. The read noise follows it as measured by Brooks et al.

    Raises:
        UsageError: a value is out of its range.
    """

    shot: tuple[float, float] = (1e-4, 0.025)

    def __post_init__(self) -> None:
        check_range(0, 1, above=True, shot=self.shot)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> CameraNoiseParams:
        low, high = np.log(self.shot)
        log_shot = rng.uniform(low, high)
        log_read = 2.18 * log_shot + 1.2 + rng.normal(0.0, 0.26)  # of the variances, Brooks et al., section 3.1
        mixing = np.eye(3) + rng.uniform(0.0, 0.45, (3, 3)) * (1 - np.eye(3))
        mixing /= mixing.sum(1, keepdims=True)  # white stays white
        return CameraNoiseParams(
            gains=(float(rng.uniform(1.2, 2.4)), float(rng.uniform(1.2, 2.4))),
            mixing=tuple(mixing.ravel().tolist()),
            tone=float(rng.uniform(0.0, 1.0)) if rng.random() < 0.7 else 0.0,
            shot=float(np.exp(log_shot)),
            read=float(np.exp(0.5 * log_read)),
            red=(int(rng.integers(2)), int(rng.integers(2))),
            demosaicing=pick(DEMOSAICINGS, rng),
            smoothing=float(rng.uniform(0.5, 2.5)) if rng.random() < SMOOTHED else 0.0,
            sharpening=float(rng.uniform(0.2, 1.0)) if rng.random() < SHARPENED else 0.0,
            seed=int(rng.integers(2**63)),
        )

    def apply(self, image: np.ndarray, params: CameraNoiseParams) -> Corrupted:
        """(H,W,1 or 3) -> the same shape and dtype, within [0, 1]. Of a gray picture the luma is kept."""
        colour = np.clip(np.broadcast_to(to_float(image), (*image.shape[:2], 3)), 0.0, 1.0)
        matrix = np.asarray(params.mixing, np.float32).reshape(3, 3)
        gains = np.array([params.gains[0], 1.0, params.gains[1]], np.float32)
        if params.tone:
            colour = np.interp(colour, _toned(_GRID, params.tone), _GRID).astype(np.float32)
        sensor = mosaic((to_linear(colour) @ matrix.T) / gains, params.red)
        rng = np.random.Generator(np.random.SFC64(params.seed))
        deviation = np.sqrt(np.float32(params.shot) * sensor + np.float32(params.read**2))
        sensor = sensor + deviation * rng.standard_normal(sensor.shape, dtype=np.float32)
        sensor = np.minimum(sensor, 1.0)
        linear = (demosaic(sensor, params.red, params.demosaicing) * gains) @ np.linalg.inv(matrix).T.astype(np.float32)
        developed = _toned(from_linear(np.clip(linear, 0.0, 1.0)), params.tone)
        if params.smoothing:  # of the colours alone, as most cameras remove noise
            gray = luma(developed)[..., None]
            developed = gray + cv2.GaussianBlur(developed - gray, (0, 0), params.smoothing)
        return Corrupted(_as(_sharpened(developed, params.sharpening), image))

    def target(self, image: np.ndarray, params: CameraNoiseParams) -> np.ndarray:
        """The picture as sharp as the camera makes it: noise is to go, not what the camera did on purpose."""
        return image if not params.sharpening else _as(_sharpened(to_float(image), params.sharpening), image)


def _as(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Values (H,W,C), clipped to [0, 1], in the dtype and with the channels of `image`."""
    if image.shape[-1] == 1 and values.shape[-1] != 1:
        values = luma(values)[..., None]
    return to_dtype(np.clip(values, 0.0, 1.0), image.dtype)


def _toned(values: np.ndarray, tone: float) -> np.ndarray:
    """An S-shaped curve, mixed into the identity by `tone`."""
    return values * ((1 - tone) + tone * values * (3 - 2 * values))


def _sharpened(image: np.ndarray, amount: float) -> np.ndarray:
    """(H,W,C) with `amount` of an unsharp mask of 1 pixel."""
    if not amount:
        return image
    blurred = cv2.GaussianBlur(image, (0, 0), 1.0).reshape(image.shape)
    return image + np.float32(amount) * (image - blurred)
