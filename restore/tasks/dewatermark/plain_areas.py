"""Correction of what a removed mark leaves in plain areas, such as a sky or a wall.

Any error can be seen there, also a tint of what was covered, and the halo that compression has spread around the mark.
But there what is beside a mark tells what is under it: planes are fitted to it, and replace what was restored, if that
deviates more from them than what is beside, yet no more than such errors do. More is an edge of the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from restore.models.blocks import without_autocast
from restore.tasks.dewatermark.outlines import EPSILON, coverage, dilated, gaussian

CELL = 2  # pixels a side of the cells that planes are fitted to: eight times as fast as to pixels
SIGMA, RADIUS = 2.0, 5  # cells: of the neighbourhood that a plane is fitted to
RIDGE = 0.05  # added to the second moments, in units of SIGMA: slopes that little is known of are small
HALO = 2  # pixels around a mark that compression has changed as well
PLAIN = 0.05  # standard deviation from the plane up to which an area is plain, as a share of what the mark changed
ERROR = 0.25  # the largest deviation of what was restored, likewise; at twice as much it is an edge of the scene
FAINT = 60 / 255  # weaker marks leave errors as if they had changed so much
ERROR_SIGMA, ERROR_RADIUS = 1.5, 4  # pixels: of the mean of the squared deviation
EDGE_RADIUS = 3  # pixels around an edge of the scene that stay as they are
MIDDLE = 0.5  # that values are taken from, so that the rounding of their squares matters less
ROUNDING = 0.6 / 255  # standard deviation that an area has at least
OFF_CENTRE = 1.0  # in units of SIGMA: how far from a pixel the mean of what is known may lie; not at all at twice that
MIN_KNOWN = 0.08  # share of the neighbourhood that is known; with less, what was restored stays in part
# Pixels: how far a result depends on others, by more than a hundredth of a level. That is less than the sum of what it
# is computed from (39), since the neighbourhoods count little at their rims.
REACH = 20


@dataclass(frozen=True)
class PlaneFit:
    """Planes fitted around each pixel, (N,C,h,w) float32.

    Args:
        values: of the planes in their centres, C channels.
        variance: of what they were fitted to, the mean of the channels.
        known: share of the neighbourhood that they were fitted to, 0 to 1.
        distance: of the centre of what they were fitted to from their own, in units of `SIGMA`.
    """

    values: torch.Tensor
    variance: torch.Tensor
    known: torch.Tensor
    distance: torch.Tensor


def level_plain_areas(restored: torch.Tensor, planes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Corrects a removed mark in plain areas by what is beside it: first the mark, then it and its halo.

    Args:
        restored, planes: RGB without and with the mark, (N,3,h,w) float32, white at 1.
        mask: (N,1,h,w), 1 in the marks and 0 elsewhere.

    Returns:
        (N,3,h,w); `planes` farther than `HALO` pixels from the mask.
    """
    with without_autocast(planes.device):
        levelled = torch.where(mask > 0, restored, planes)
        covered, strongest = coverage(levelled, planes, mask)
        for halo in (0, HALO):
            inside = dilated(covered, 1 + halo)
            fit = fit_planes(levelled, 1 - inside)
            deviation = fit.values - levelled
            square = gaussian(deviation.square().mean(1, keepdim=True) * inside, ERROR_SIGMA, ERROR_RADIUS)
            square = square / gaussian(inside, ERROR_SIGMA, ERROR_RADIUS).clamp(min=EPSILON)
            usual = fit.variance + ROUNDING**2
            largest = dilated(deviation.abs().mean(1, keepdim=True) * inside, EDGE_RADIUS)
            limit = dilated(strongest, halo).clamp(min=FAINT)
            share = (
                inside
                * (fit.known / MIN_KNOWN).clamp(max=1)
                * (2 - fit.distance / OFF_CENTRE).clamp(0, 1)
                * (2 - usual.sqrt() / (PLAIN * limit)).clamp(0, 1)
                * (2 - largest / (ERROR * limit)).clamp(0, 1)
                * (square / usual - 1).clamp(0, 1)
            )
            levelled = levelled + share * deviation
        return levelled


def fit_planes(values: torch.Tensor, known: torch.Tensor) -> PlaneFit:
    """Fits planes by weighted least squares: normalised convolution with a linear basis (Knutsson and Westin 1993).

    They are fitted in the centres of cells of `CELL` pixels, and interpolated.

    Args:
        values: (N,C,h,w) float32; h and w of tiles that start in a corner of a cell.
        known: (N,1,h,w), how much each pixel counts, 0 to 1.
    """
    channels, (height, width) = values.shape[1], values.shape[-2:]
    offsets = torch.arange(-RADIUS, RADIUS + 1, device=values.device, dtype=values.dtype) / SIGMA
    window = torch.exp(-offsets.square() / 2)
    window = window / window.sum()
    constant, linear, square = window, window * offsets, window * offsets.square()
    values = values - MIDDLE
    seen = values * known
    pixels = torch.cat([known, seen, (values * seen).mean(1, keepdim=True)], dim=1)
    across = F.avg_pool2d(pixels, CELL, ceil_mode=True, count_include_pad=False)
    plain, slanted = _filtered(across, constant, -1), _filtered(across[:, :-1], linear, -1)
    by_row, by_row_slanted = _filtered(plain, constant, -2), _filtered(slanted, constant, -2)
    total, first, power = by_row.split((1, channels, 1), dim=1)
    x, first_x = by_row_slanted.split((1, channels), dim=1)
    y, first_y = _filtered(plain[:, :-1], linear, -2).split((1, channels), dim=1)
    xx = _filtered(_filtered(across[:, :1], square, -1), constant, -2)
    yy, xy = _filtered(plain[:, :1], square, -2), _filtered(slanted[:, :1], linear, -2)
    weight = total.clamp(min=EPSILON)
    # The slopes, from the moments around the mean; then the value in the centre.
    xx, yy, xy = xx - x * x / weight + RIDGE * weight, yy - y * y / weight + RIDGE * weight, xy - x * y / weight
    first_x, first_y, mean = first_x - x * first / weight, first_y - y * first / weight, first / weight
    determinant = (xx * yy - xy * xy).clamp(min=EPSILON**2)
    slope_x, slope_y = (yy * first_x - xy * first_y) / determinant, (xx * first_y - xy * first_x) / determinant
    explained = (mean * first + slope_x * first_x + slope_y * first_y).mean(1, keepdim=True)
    fit = torch.cat(
        [
            mean - (slope_x * x + slope_y * y) / weight + MIDDLE,
            ((power - explained) / weight).clamp(min=0),
            total,
            (x.square() + y.square()).sqrt() / weight,
        ],
        dim=1,
    )
    enlarged = F.interpolate(fit, scale_factor=float(CELL), mode="bilinear")[..., :height, :width]
    return PlaneFit(*enlarged.split((channels, 1, 1, 1), dim=1))


def _filtered(values: torch.Tensor, kernel: torch.Tensor, dim: int) -> torch.Tensor:
    """(N,C,h,w) correlated with `kernel` (2*RADIUS+1,) along `dim`, -1 or -2; 0 beyond the image."""
    channels = values.shape[1]
    shape, padding = ((1, 1, 1, -1), (0, RADIUS)) if dim == -1 else ((1, 1, -1, 1), (RADIUS, 0))
    return F.conv2d(values, kernel.view(shape).repeat(channels, 1, 1, 1), padding=padding, groups=channels)
