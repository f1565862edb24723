"""Removal of the outlines that a mark leaves in plain areas.

Along the rim of a mark, how much of a pixel it covers is uncertain, the more so after compression. What is wrong there
is a thin line in the shape of the mark, which can be read in a sky or on skin. There the pixels of the rim are
interpolated from those on both sides. Among contrasts, where a line is not seen and detail would be lost, this is done
to their colour alone: its detail is not missed, and most files have it at half the resolution.

Compression leaves ringing beside the rim as well. It is fainter, and wider than what can be interpolated without loss:
in plain areas its deviations are scaled to those of what is around.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from restore.models.blocks import max_filter, without_autocast
from restore.tasks.functional import correlate1d, gaussian_kernel1d, luma

COVERED = 0.6  # share of the strongest change nearby, from which on a pixel counts as covered
SOFTNESS = 0.4  # of that decision, in the same unit, so that rounding does not decide it
MIN_CHANGE = 4 / 255  # weaker marks leave no outlines
NEARBY = 4  # pixels
SIGMA, RADIUS = 1.5, 3  # pixels: of the normalised convolution (Knutsson and Westin 1993) that interpolates
# Contrast around a rim, as a share of what the mark changed, up to which it is plain; at twice as much it is not at
# all. Strong marks leave strong outlines.
PLAIN = 0.15
AROUND = 8  # pixels, a power of 2
RINGING = 3  # pixels to either side of a rim
# Pixels: of the convolution that deviations are measured from, and of the Gaussian that is left out of its centre where
# the pixel itself is known.
WIDE_SIGMA, WIDE_RADIUS, CENTRE_SIGMA = 2.5, 6, 1.75
# How much of the narrow Gaussian is subtracted from the wide one, so that the pixel in the centre has no weight.
CENTRE_WEIGHT = (
    gaussian_kernel1d(WIDE_SIGMA, WIDE_RADIUS)[WIDE_RADIUS] / gaussian_kernel1d(CENTRE_SIGMA, WIDE_RADIUS)[WIDE_RADIUS]
) ** 2
# As `PLAIN`, for ringing; and the deviation, as a share of what the mark changed, up to which it counts as ringing. At
# twice as much it is something of the scene, or a part of the mark that was missed.
PLAIN_RINGING, MAX_RINGING = 0.08, 0.15
ROUNDING = 0.4 / 255  # standard deviation of rounding, which is added to both
REACH = NEARBY + 2 + AROUND  # pixels: how far smooth outlines depend on others; the 2 are dilations by 1
MIN_SHARE = 0.02  # of pixels nearby that tell what belongs into a rim; with fewer it stays
EPSILON = 1e-6  # against a division by 0


def smooth_outlines(restored: torch.Tensor, planes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Interpolates the rims of a removed mark in plain areas.

    Args:
        restored, planes: RGB without and with the mark, (N,3,h,w) float32, white at 1.
        mask: (N,1,h,w), 1 in the marks and 0 elsewhere.

    Returns:
        (N,3,h,w); `planes` outside of the mask.
    """
    with without_autocast(planes.device):
        restored, covered, strongest = coverage(restored, planes, mask)
        rim = _rim(covered, 1, mask)
        interpolated, known = _interpolated(restored, 1 - rim)
        calm = 1 - dilated(rim, 1)  # the steps into a rim do not count
        contrast, share = _weighted_mean(_contrast(restored), calm)
        plain = (2 - contrast / (PLAIN * strongest)).clamp(0, 1)
        enough = (torch.minimum(share, known) / MIN_SHARE).clamp(max=1)
        correction = (interpolated - restored) * enough * rim
        return restored + correction - (1 - plain) * luma(correction)


def reduce_ringing(restored: torch.Tensor, planes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Reduces deviations along the rims of a removed mark in plain areas.

    Each is multiplied by the share of its variance nearby that is usual in what is around, as by a Wiener filter. Those
    beyond `MAX_RINGING` stay; so do all where contrasts are beyond `PLAIN_RINGING`, or too little is around.

    Args:
        restored, planes: RGB without and with the mark, (N,3,h,w) float32, white at 1.
        mask: (N,1,h,w), 1 in the marks and 0 elsewhere.

    Returns:
        (N,3,h,w); `planes` outside of the mask.
    """
    with without_autocast(planes.device):
        restored, covered, strongest = coverage(restored, planes, mask)
        ringing = _rim(covered, RINGING, mask)
        calm = 1 - dilated(torch.maximum(ringing, covered), 1)
        largest = MAX_RINGING * strongest
        first, _ = _deviation(restored, 1 - ringing, centre=False)
        # An object that crosses the mark would pull what is beside it towards its own colour: it is not compared with.
        deviation, known = _deviation(restored, (1 - ringing) * _small(first, largest), centre=False)
        small = _small(deviation, largest)
        own, _ = _weighted_mean(_power(deviation), ringing * known * small)
        around, seen = _deviation(restored, calm, centre=True)
        usual, compared = _weighted_mean(_power(around), calm * seen)
        contrast, _ = _weighted_mean(_contrast(restored), calm)
        excess = 1 - ((usual + ROUNDING**2) / (own + ROUNDING**2)).clamp(max=1)
        plain = (2 - contrast / (PLAIN_RINGING * strongest)).clamp(0, 1)
        enough = torch.minimum(known, (compared / MIN_SHARE).clamp(max=1))
        return restored - deviation * ringing * excess * plain * small * enough


def coverage(
    restored: torch.Tensor, planes: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a mark changed.

    Args:
        restored, planes, mask: as of `smooth_outlines`.

    Returns:
        `restored` (N,3,h,w), `planes` outside of the mask; how much each pixel counts as covered by the mark, 0 to 1;
        and what the mark changed nearby: (N,1,h,w) each.
    """
    restored = torch.where(mask > 0, restored, planes)
    change = (planes - restored).abs().mean(1, keepdim=True)
    strongest = dilated(change, NEARBY).clamp(min=MIN_CHANGE)
    return restored, ((change / strongest - COVERED) / SOFTNESS + 0.5).clamp(0, 1), strongest


def dilated(values: torch.Tensor, radius: int) -> torch.Tensor:
    """The largest of `values` (N,1,h,w), at least 0, within squares of `radius` pixels to each side."""
    return max_filter(values, (radius, radius), (radius, radius))


def _contrast(planes: torch.Tensor) -> torch.Tensor:
    """The mean absolute difference to the pixels left and right, plus that to those above and below: (N,1,h,w).

    At the border, beyond which there is none, the one difference counts twice.
    """
    across = (planes[..., 1:] - planes[..., :-1]).abs().mean(1, keepdim=True)
    down = (planes[..., 1:, :] - planes[..., :-1, :]).abs().mean(1, keepdim=True)
    height, width = planes.shape[-2:]
    across = F.pad(across, (1, 1, 0, 0), mode="replicate") if width > 1 else F.pad(across, (1, 1))
    down = F.pad(down, (0, 0, 1, 1), mode="replicate") if height > 1 else F.pad(down, (0, 0, 1, 1))
    return (across[..., 1:] + across[..., :-1] + down[..., 1:, :] + down[..., :-1, :]) / 2


def _weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over the pixels `AROUND` each one by their weight (N,1,h,w), and the mean of the weight."""
    total = _box_sum(weight)
    return _box_sum(values * weight) / total.clamp(min=EPSILON), total / (2 * AROUND + 1) ** 2


def _box_sum(values: torch.Tensor) -> torch.Tensor:
    """Sums over `AROUND` pixels to each side, 0 beyond the image: by doubling, five times as fast as pooling on a CPU.

    values: (N,C,h,w).
    """
    for dim, pads in ((-1, (AROUND, AROUND, 0, 0)), (-2, (0, 0, AROUND, AROUND))):
        padded = F.pad(values, pads)
        total, width = padded, 1
        while width < 2 * AROUND:
            length = total.shape[dim] - width
            total, width = total.narrow(dim, 0, length) + total.narrow(dim, width, length), 2 * width
        values = total.narrow(dim, 0, values.shape[dim]) + padded.narrow(dim, width, values.shape[dim])
    return values


def _interpolated(values: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalised convolution of pixels that are `known` (N,1,h,w), and how much of them there is nearby."""
    weight, total = _smoothed(values, known, SIGMA, RADIUS)
    return total / weight.clamp(min=EPSILON), weight


def _rim(covered: torch.Tensor, radius: int, mask: torch.Tensor) -> torch.Tensor:
    """How near to a border of what is `covered` each pixel of the mask is, within `radius`: (N,1,h,w), 0 to 1."""
    return (dilated(covered, radius) - 1 + dilated(1 - covered, radius)).clamp(min=0) * mask


def _smoothed(
    values: torch.Tensor, known: torch.Tensor, sigma: float, radius: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`known` (N,1,h,w), and `values` (N,C,h,w) where they are known and 0 elsewhere, both smoothed by a Gaussian."""
    kernel, both = gaussian_kernel1d(sigma, radius), torch.cat([known, values * known], dim=1)
    weight, total = correlate1d(correlate1d(both, kernel, -1), kernel, -2).split((1, values.shape[1]), dim=1)
    return weight, total


def _deviation(values: torch.Tensor, known: torch.Tensor, centre: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each pixel deviates from the known ones nearby (N,C,h,w), and whether there are enough (N,1,h,w), 0 to 1.

    Args:
        values: (N,C,h,w).
        known: (N,1,h,w), 0 to 1.
        centre: the pixel itself is known, and is left out.
    """
    weight, total = _smoothed(values, known, WIDE_SIGMA, WIDE_RADIUS)
    if centre:
        inner_weight, inner_total = _smoothed(values, known, CENTRE_SIGMA, WIDE_RADIUS)
        weight, total = weight - CENTRE_WEIGHT * inner_weight, total - CENTRE_WEIGHT * inner_total
    return values - total / weight.clamp(min=EPSILON), (weight / MIN_SHARE).clamp(0, 1)


def _power(values: torch.Tensor) -> torch.Tensor:
    """The mean square of the channels: (N,C,h,w) -> (N,1,h,w)."""
    return values.square().mean(1, keepdim=True)


def _small(deviation: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """1 where a deviation (N,C,h,w) is at most `largest` (N,1,h,w), 0 from twice as much: (N,1,h,w)."""
    return (2 - deviation.abs().mean(1, keepdim=True) / largest).clamp(0, 1)
