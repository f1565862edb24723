"""Detection of holes: which pixels the network takes for damage, and which connected parts of them are.

Weights with a judge give log odds that each part is damage, and that the picture has any; what has one colour as only
a drawing has is believed without it. For weights that have none the logits of the pixels decide.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from restore.models.masking import FIND, JUDGE, PART_HIGH, PART_LOW, keep_labels, part_labels, pool_evidence
from restore.pixels import to_uint8
from restore.tasks.base import Picture, Predictor
from restore.tasks.functional import to_array
from restore.tasks.inpaint.solid_colour import complete_shapes, extend_strokes, has_solid_colour
from restore.tasks.inpaint.uniform_colour import repeated_colours, spanning_bars
from restore.tasks.mask_detection import (
    HIGHEST,
    LEVELS,
    LOWEST,
    UNCERTAIN,
    HysteresisThreshold,
    detect_logits,
    dilate,
    highest_mean_logit,
    mask_from_logits,
    probability,
)
from restore.tasks.monochrome import is_monochrome

# Thresholds of weights without a judge (`evidence` is 0).
# For shapes of constant colour, which completes the mask.
EXACT_THRESHOLD = HysteresisThreshold(low=-1.0, high=6.0)
# After resizing or compression: a missed pixel stays visible, an additional one is filled well.
REENCODED_THRESHOLD = HysteresisThreshold(low=-4.0, high=4.5)
# Highest mean logit of a component, below which a re-encoded image counts as clean unless `aggressive`: real damage has
# high logits everywhere, similar objects of the scene only in spots.
MIN_MEAN_LOGIT = 1.5
# Thresholds of weights with a judge.
# Log odds that a picture is damaged, and that its most certain part is, from which on it is restored; and log odds of
# the parts that are.
CONVINCING, LIKELY = (2.5, 1.25), -1.5
# The same in gray and sepia pictures, many of which are old prints with scratches, if the parts are no larger share of
# the picture; only thin ones are restored.
CONVINCING_MONOCHROME, LIKELY_MONOCHROME, MONOCHROME_SHARE = (1.75, 1.0), -1.0, 0.05
THIN, THIN_SHARE = 3.0, 0.015  # half the width of thin parts at most: in pixels, or as a share of the short side
DOUBTFUL = 1.0  # log odds that a picture is damaged, from which on its parts are reported
# Log odds of bars from side to side and of parts of a repeated colour, which hardly any scene has; and the least that
# the judge must give a part of a repeated colour.
UNIFORM, POSSIBLE = 4.0, -2.0
LIKELY_SOLID = 0.5  # instead of `LIKELY`, where these have a constant colour, which nothing has blurred
# Parts of a picture in colours with log odds below `LIKELY_SOLID` are restored only if their mean colour is within so
# many levels of 255, in each channel, of a part above it: what covers a picture has few colours.
SAME_COLOUR = 40
DRAWN_COLOUR = 14  # the same, of likely parts in spite of a picture that is in doubt, to a part that only a drawing has
# Largest share of a picture that is restored unasked: one of 112 damaged pictures of the validation set has more, and a
# false detection of that size would replace most of what the picture shows.
MAX_SHARE = 0.2
# Share of a part that is within the reach of a bar, or of a gutter, from which on it belongs to it.
EDGE_SHARE, GUTTER_SHARE = 0.5, 0.75
MIN_PIXELS = 4  # of a part
# Where pixels were resized or compressed, parts grow by up to `GROWTH` pixels of at least `EDGE_LOGIT`, since a missed
# one stays visible; in gray and sepia pictures, whose scratches have softer edges, of `EDGE_LOGIT_MONOCHROME`.
GROWTH, EDGE_LOGIT, EDGE_LOGIT_MONOCHROME = 6, -2.0, -4.0
COLOUR_LOGIT = 2.0  # from which on a pixel is used to estimate the colour of the damage
JUDGE_WEIGHT = 0.5  # weight of the loss of what is said of parts


def detect_holes(picture: Picture, predict: Predictor, aggressive: bool) -> tuple[np.ndarray, float | None, str]:
    """Finds damage.

    Args:
        picture: the picture.
        predict: the network.
        aggressive: take doubtful parts too.

    Returns:
        The mask (H,W) bool; how likely the most convincing part is damage, 0 to 1, None if there are none; and what a
        person is told of the parts that were left.
    """
    levels, evidence = detect_logits(picture, predict, FIND)
    if evidence is None:
        found, confidence = detect_unjudged(picture, levels, aggressive)
        if found is None:
            return np.zeros(picture.size, bool), confidence, UNCERTAIN
        return found, confidence, ""
    labels = part_labels(levels, PART_LOW * LEVELS, PART_HIGH * LEVELS)
    sizes = np.bincount(labels.ravel())[1:]
    bars, gutters = spanning_bars(picture.rgb, levels)
    parted = 0
    if gutters.any() and not aggressive:
        kept = ~_parts_within(gutters, labels, sizes, GUTTER_SHARE)
        labels, sizes, parted = keep_labels(labels, np.append(False, kept)), sizes[kept], int(np.count_nonzero(~kept))
    if not len(sizes):
        return labels > 0, None, left_note(parted)
    part, whole = _judged(levels, evidence, labels, predict)
    likely = (part >= LIKELY) & (sizes >= min(MIN_PIXELS, labels.size // 2))
    odds = float(whole.max()), float(part[likely].max(initial=LIKELY))
    monochrome = (aggressive or all(np.greater_equal(odds, CONVINCING_MONOCHROME))) and is_monochrome(picture)
    same_colour = functools.partial(_same_colour, picture.rgb, levels, labels)
    if aggressive:
        taken = likely & (odds[0] >= DOUBTFUL)
    elif all(np.greater_equal(odds, CONVINCING)):
        taken = likely
        if not monochrome:
            taken = likely & same_colour(likely & (part >= LIKELY_SOLID), SAME_COLOUR)
    else:
        taken = likely & (part >= LIKELY_MONOCHROME) & monochrome
        taken &= sizes[taken].sum() <= MONOCHROME_SHARE * labels.size
        if taken.any():
            taken &= _thin(labels, len(sizes))
    drawn = (part >= POSSIBLE) & repeated_colours(picture.rgb, levels >= COLOUR_LOGIT * LEVELS, labels, sizes)
    if bars.any():
        drawn |= _parts_within(bars, labels, sizes, EDGE_SHARE)
    if drawn.any():
        drawn |= likely & same_colour(drawn, DRAWN_COLOUR)
    found, certain = taken | drawn, bool(bars.any() or drawn.any())
    suspected = found | likely & (odds[0] >= DOUBTFUL)
    mask = np.zeros(picture.size, bool)
    if found.any() or certain:
        pixels, part = to_uint8(picture.rgb), np.where(drawn, UNIFORM, part)
        edge = EDGE_LOGIT_MONOCHROME if monochrome else EDGE_LOGIT
        mask = _completed(pixels, levels, labels, found, part, edge, bars)
        if certain and mask.mean() > MAX_SHARE and not aggressive:
            found, certain = taken, False
            mask = _completed(pixels, levels, labels, found, part, edge)
        if mask.mean() > MAX_SHARE and not aggressive:
            found, mask = np.zeros_like(found), np.zeros_like(mask)
    confidence = probability(max(odds[0], UNIFORM) if certain else odds[0])
    return mask, confidence, left_note(parted + int(np.count_nonzero(suspected & ~found)))


def _parts_within(lines: np.ndarray, labels: np.ndarray, sizes: np.ndarray, share: float) -> np.ndarray:
    """Which parts, labelled from 1 and of `sizes` (P,), lie by `share` within the reach of `lines` (H,W): (P,) bool."""
    within: np.ndarray = np.bincount(labels[dilate(lines, GROWTH)], minlength=len(sizes) + 1)[1:] >= share * sizes
    return within


def _same_colour(
    rgb: np.ndarray, levels: np.ndarray, labels: np.ndarray, known: np.ndarray, tolerance: int
) -> np.ndarray:
    """Which parts have about the colour of one that is known to be damage: (P,) bool.

    Args:
        rgb: (H,W,3), any supported dtype.
        levels: quantised logits.
        labels: (H,W) of the parts, from 1.
        known: (P,) bool.
        tolerance: levels of 255, by which the means differ at most in any channel.
    """
    count = len(known)
    inside = labels > 0
    number = labels[inside] - 1
    weight = np.where(levels[inside] >= COLOUR_LOGIT * LEVELS, 1.0, 1e-3)  # the rim is mixed with what is beside
    sums = [np.bincount(number, weight * channel, count) for channel in to_uint8(rgb[inside]).T]
    colours = np.stack(sums, axis=-1) / np.bincount(number, weight, count)[:, None]
    apart = np.full(count, np.inf)
    for colour in colours[known]:
        np.minimum(apart, np.abs(colours - colour).max(-1), out=apart)
    same: np.ndarray = apart <= tolerance
    return same


def _thin(labels: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` parts, labelled from 1 in (H,W), are thin everywhere: (count,) bool.

    At the border of the picture a part is taken for the half of one, twice as wide.
    """
    depth = cv2.distanceTransform((labels > 0).astype(np.uint8), cv2.DIST_L2, 3)
    thin = np.ones(count, bool)
    thin[np.unique(labels[depth > max(THIN, THIN_SHARE * min(labels.shape))]) - 1] = False
    return thin


def _completed(
    pixels: np.ndarray,
    levels: np.ndarray,
    labels: np.ndarray,
    taken: np.ndarray,
    part: np.ndarray,
    edge: float,
    bars: np.ndarray | None = None,
) -> np.ndarray:
    """The mask (H,W) bool of the parts that are `taken` (P,), completed: by their colour, or by soft edges.

    Args:
        pixels: (H,W,3) uint8.
        levels: quantised logits.
        labels: of the parts, 0 for the background.
        part: (P,) log odds of each.
        edge: see `soft_edged`.
        bars: (H,W) bool, taken too.
    """
    for chosen in (taken & (part >= LIKELY_SOLID), taken):
        mask = np.append(False, chosen)[labels]
        if bars is not None:
            mask |= bars
        if mask.any() and has_solid_colour(pixels, mask):
            return complete_shapes(pixels, mask, certain=levels >= COLOUR_LOGIT * LEVELS, excluded=levels == LOWEST)
    return soft_edged(pixels, mask, levels, edge)


def detect_unjudged(picture: Picture, levels: np.ndarray, aggressive: bool) -> tuple[np.ndarray | None, float | None]:
    """The mask (H,W) that follows from quantised logits, None if it may be an object of the scene; its confidence."""
    mask = mask_from_logits(levels, EXACT_THRESHOLD)
    if not mask.any():
        return mask, None
    pixels = to_uint8(picture.rgb)
    if not has_solid_colour(pixels, mask):
        mask = mask_from_logits(levels, REENCODED_THRESHOLD)
        logit = highest_mean_logit(levels, mask)
        if logit < MIN_MEAN_LOGIT and not aggressive:
            return None, probability(logit)
        return extend_strokes(pixels, mask, certain=levels >= COLOUR_LOGIT * LEVELS), probability(logit)
    confidence = probability(highest_mean_logit(levels, mask))
    return complete_shapes(pixels, mask, certain=levels >= COLOUR_LOGIT * LEVELS, excluded=levels == LOWEST), confidence


def left_note(parts: int) -> str:
    """What a person is told of `parts` that are in doubt."""
    if not parts:
        return ""
    one = parts == 1
    return (
        f"{parts} part{'' if one else 's'} may be damage and {'is' if one else 'are'} left unchanged;"
        f" --aggressive restores {'it' if one else 'them'} too, and with --dry-run --save-mask DIR only shows where"
    )


def _judged(levels: np.ndarray, evidence: np.ndarray, labels: np.ndarray, predict: Predictor) -> np.ndarray:
    """Log odds (2,P): that each part is damage, and that the picture has any."""
    logits, values = torch.from_numpy(levels) / LEVELS, torch.from_numpy(evidence) / HIGHEST
    odds = predict.whole(pool_evidence(logits, values, torch.from_numpy(labels)), JUDGE)
    return to_array(odds[:, :, 0])


def soft_edged(pixels: np.ndarray, mask: np.ndarray, levels: np.ndarray, edge: float) -> np.ndarray:
    """Completes a mask (H,W) bool by soft edges, and by the colours under it.

    Args:
        pixels: (H,W,3) uint8.
        mask: (H,W) bool.
        levels: quantised logits.
        edge: logit from which on a pixel beside the mask is added.
    """
    grown = dilate(mask, GROWTH) & (levels >= edge * LEVELS) | mask
    return extend_strokes(pixels, grown, certain=mask & (levels >= COLOUR_LOGIT * LEVELS))


def verdict_loss(logits: torch.Tensor, verdicts: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of what the network says of each part that it found, and of each picture with parts.

    What is true of a part is the share of it that is damaged. Every part of a picture counts the same, and pictures
    with many parts count more, by the root of their number.

    Args:
        logits: (N,1,H,W) of the mask, which make the parts.
        verdicts: (N,2,H,W), log odds for each pixel of a part; (N,0,H,W): parts are not judged.
        mask: (N,1,H,W), 0 or 1.
    """
    losses, weights = [logits.sum() * 0], 1.0
    for number, levels in enumerate(logits[:, 0].detach().float().cpu().numpy() if verdicts.shape[1] else ()):
        labels = torch.from_numpy(part_labels(levels)).to(mask.device).long()
        inside = labels > 0
        if not inside.any():
            continue
        parts, true, said = labels[inside] - 1, mask[number, 0][inside], verdicts[number][:, inside].float()
        size = torch.bincount(parts)
        truth = torch.bincount(parts, true) / size
        own = torch.zeros(len(size), device=said.device).index_add(0, parts, said[0]) / size
        weight = math.sqrt(len(size))
        losses.append(F.binary_cross_entropy_with_logits(own, truth.to(own)) * weight)
        losses.append(F.binary_cross_entropy_with_logits(said[1].mean(), mask[number].amax()) * weight)
        weights += weight
    return torch.stack(losses).sum() * (JUDGE_WEIGHT / weights)
