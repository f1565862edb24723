"""Correction of what a removed mark leaves in plain areas, such as a sky or a wall.

A tint, or noise that the inversion of the blend has enlarged, shows the shape of a mark there. What is beside it tells
how bright, how coloured and how noisy the area is: what was restored is shifted and scaled to that, as in the matching
of moments (Reinhard et al. 2001), around planes, so that slopes stay. Lines and edges in it stay visible: a deviation
is made smaller, never replaced, and left alone where it is too large for an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from restore.models.blocks import without_autocast
from restore.tasks.dewatermark.outlines import EPSILON, coverage, dilated
from restore.tasks.functional import correlate1d, gaussian_kernel1d

CELL = 2  # pixels a side of the cells that planes are fitted to: several times as fast as to pixels
SIGMA, RADIUS = 2.0, 5  # cells: of the neighbourhood that a plane is fitted to
RIDGE = 0.05  # added to the second moments, in units of SIGMA: slopes that little is known of are small
PLAIN = 0.05  # standard deviation from the plane up to which an area is plain, as a share of what the mark changed,
PLAIN_LEAST = 1 / 255  # and more, for faint marks
SHIFT, SHIFT_LEAST = 0.2, 6 / 255  # the largest shift, likewise; at twice as much it is none at all
NOISIER = 4.0  # variance of what was restored, over that beside it; at twice as much it is something of the scene
MIDDLE = 0.5  # that values are taken from, so that the rounding of their squares matters less
ROUNDING = 0.6 / 255  # standard deviation that an area has at least
OFF_CENTRE = 1.0  # in units of SIGMA: how far from a pixel the mean of what is known may lie; not at all at twice that
MIN_KNOWN = 0.08  # share of the neighbourhood that is known; with less, what was restored stays in part
# Pixels: how far a result depends on others, by more than a hundredth of a level. That is less than the sum of what it
# is computed from, since the neighbourhoods count little at their rims.
REACH = 18


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


def match_plain_areas(restored: torch.Tensor, planes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Matches a removed mark in plain areas to what is beside it.

    Args:
        restored, planes: RGB without and with the mark, (N,3,h,w) float32, white at 1.
        mask: (N,1,h,w), 1 in the marks and 0 elsewhere.

    Returns:
        (N,3,h,w); `planes` outside of the mask.
    """
    with without_autocast(planes.device):
        restored, covered, strongest = coverage(restored, planes, mask)
        near = dilated(covered, 1)
        inside = near * mask
        beside, within = fit_planes(restored, 1 - near), fit_planes(restored, inside)
        shift = beside.values - within.values
        usual, own = beside.variance + ROUNDING**2, within.variance + ROUNDING**2
        share = (
            inside
            * (torch.minimum(beside.known, within.known) / MIN_KNOWN).clamp(max=1)
            * (2 - beside.distance / OFF_CENTRE).clamp(0, 1)
            * (2 - usual.sqrt() / (PLAIN * strongest + PLAIN_LEAST)).clamp(0, 1)
            * (2 - shift.abs().mean(1, keepdim=True) / (SHIFT * strongest + SHIFT_LEAST)).clamp(0, 1)
            * (2 - own / (NOISIER * usual)).clamp(0, 1)
        )
        scale = (usual / own).sqrt().clamp(max=1)
        return restored + share * (shift + (scale - 1) * (restored - within.values))


def fit_planes(values: torch.Tensor, known: torch.Tensor) -> PlaneFit:
    """Fits planes by weighted least squares: normalised convolution with a linear basis (Knutsson and Westin 1993).

    They are fitted in the centres of cells of `CELL` pixels, and interpolated.

    Args:
        values: (N,C,h,w) float32; tiles of a picture must start at even rows and columns.
        known: (N,1,h,w), how much each pixel counts, 0 to 1.
    """
    channels, (height, width) = values.shape[1], values.shape[-2:]
    constant = gaussian_kernel1d(SIGMA, RADIUS)
    linear = [weight * offset / SIGMA for offset, weight in enumerate(constant, -RADIUS)]
    square = [weight * offset / SIGMA for offset, weight in enumerate(linear, -RADIUS)]
    values = values - MIDDLE
    seen = values * known
    pixels = torch.cat([known, seen, (values * seen).mean(1, keepdim=True)], dim=1)
    across = F.avg_pool2d(pixels, CELL, ceil_mode=True, count_include_pad=False)
    plain, slanted = correlate1d(across, constant, -1), correlate1d(across[:, :-1], linear, -1)
    by_row, by_row_slanted = correlate1d(plain, constant, -2), correlate1d(slanted, constant, -2)
    total, first, power = by_row.split((1, channels, 1), dim=1)
    x, first_x = by_row_slanted.split((1, channels), dim=1)
    y, first_y = correlate1d(plain[:, :-1], linear, -2).split((1, channels), dim=1)
    xx = correlate1d(correlate1d(across[:, :1], square, -1), constant, -2)
    yy, xy = correlate1d(plain[:, :1], square, -2), correlate1d(slanted[:, :1], linear, -2)
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
