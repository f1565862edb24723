"""Exemplar-based filling of wide holes: where a network predicts a blur, patches of the surroundings give texture.

Every patch that touches the hole is matched to an undamaged one by PatchMatch (Barnes et al. 2009), and every pixel of
the hole becomes a weighted mean of the patches over it; both in turn, from coarse to fine (Wexler et al. 2007). Matches
agree with what is there so far, with the low frequencies of the prediction of the network, and with the surroundings in
the strength of their texture (after Newson et al. 2014).
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from restore.pixels import Array

PATCH = 7  # pixels, side of a patch
REACH = PATCH // 2
# Weights of the squared differences of low frequencies and of the strength of texture, beside the mean of those of the
# pixels of a patch.
LOW_FREQUENCIES, TEXTURE = 4.0, 2.0
SIGMA = 2.0  # pixels, of the low-pass filter
SPREAD = 0.6  # standard deviation of the filter that carries the strength of texture into a hole, in depths of it
DECAY, DEEPEST = 1.3, 12.0  # by which the confidence in a pixel falls with each pixel of depth, and how deep at most
ROUNDS, LAST_ROUNDS = 8, 4  # of matching and averaging at each level, and at the finest
FIRST_SEARCHES = 4  # at the coarsest level, from random matches
MAX_PATCHES = 50_000  # that are matched at a level; where there are more, it keeps the matches of the coarser level
MIN_SOURCES = 100  # patches to choose from, for a level to be used
_EPSILON = 1e-6


def synthesize_texture(filled: Array, hole: Array, damaged: Array) -> Array | None:
    """Fills a hole with texture from around it.

    Args:
        filled: (H,W,3) float32, white at 1, the picture with a prediction in all damaged pixels.
        hole: (H,W) bool, the pixels to fill, not empty.
        damaged: (H,W) bool, `hole` and all other pixels that nothing may be taken from.

    Returns:
        (H,W,3) float32, `filled` with other values in the hole; None if too little of the picture is undamaged.
    """
    levels = [_Level(filled, hole, damaged)]
    while levels[-1].depth > REACH + 1:
        coarser = levels[-1].shrunk()
        if len(coarser.sources) < MIN_SOURCES:
            break
        levels.append(coarser)
    if len(levels[0].sources) < MIN_SOURCES:
        return None
    rng = np.random.default_rng(0)
    levels[-1].start(rng)
    for coarser, finer in zip(levels[:0:-1], levels[-2::-1], strict=True):
        finer.start_from(coarser, rng, LAST_ROUNDS if finer is levels[0] else ROUNDS)
    levels[0].average(best=True)
    return levels[0].image


class _Level:
    """The picture at one resolution. A patch is named by the index y * W + x of its centre.

    Args:
        filled, hole, damaged: as in `synthesize_texture`.

    Attributes:
        image: (H,W,3) float32, what is there so far.
        sources, targets: the undamaged patches, and those that touch the hole, in ascending order.
        matches, errors: for each target its source, and by how much they differ.
        depth: of the hole, in pixels.
    """

    matches: Array
    errors: Array

    def __init__(self, filled: Array, hole: Array, damaged: Array) -> None:
        self.filled, self.hole, self.damaged, self.image = filled, hole, damaged, filled.copy()
        height, self.width = hole.shape
        centres = np.zeros(hole.shape, bool)
        centres[REACH : height - REACH, REACH : self.width - REACH] = True
        self.is_source = centres & ~_touching(damaged, PATCH)
        self.sources = np.flatnonzero(self.is_source)
        self.targets = np.flatnonzero(centres & _touching(hole, PATCH))
        depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3)
        self.depth = float(depth.max())
        self.confidence = (DECAY ** -np.minimum(depth, DEEPEST)).astype(np.float32)
        known = (~damaged).astype(np.float32)
        self._low = _known_mean(filled, known, SIGMA).reshape(-1, 3)
        self._wanted_low = cv2.GaussianBlur(filled, (0, 0), SIGMA).reshape(-1, 3)[self.targets]
        gray, gradient = filled.mean(-1), np.zeros((*hole.shape, 1), np.float32)
        gradient[1:, :, 0] += np.abs(np.diff(gray, axis=0))
        gradient[:, 1:, 0] += np.abs(np.diff(gray, axis=1))
        known = (~_touching(damaged, 3)).astype(np.float32)
        self._strength = _known_mean(gradient, known, SIGMA).ravel()
        self._wanted_strength = _known_mean(gradient, known, max(SIGMA, SPREAD * self.depth)).ravel()[self.targets]

    def shrunk(self) -> _Level:
        """This level at half the resolution."""
        size = -(-self.width // 2), -(-self.hole.shape[0] // 2)
        shrink = partial(cv2.resize, dsize=size, interpolation=cv2.INTER_AREA)
        hole, damaged = (shrink(mask.astype(np.float32)) > _EPSILON for mask in (self.hole, self.damaged))
        return _Level(shrink(self.filled), hole, damaged)

    def start(self, rng: np.random.Generator) -> None:
        """Fills the hole from random matches: the first are improved by undamaged pixels alone."""
        self.matches = rng.choice(self.sources, len(self.targets))
        self._compare_by((~self.hole).astype(np.float32))
        for _ in range(FIRST_SEARCHES):
            self._search(rng)
        self._refine(ROUNDS, rng)

    def start_from(self, coarser: _Level, rng: np.random.Generator, rounds: int) -> None:
        """Fills the hole by the matches of a level of half the resolution, and refines them in some rounds."""
        rows, columns = np.divmod(self.targets, self.width)
        above = (rows // 2).clip(REACH, coarser.hole.shape[0] - 1 - REACH)
        left = (columns // 2).clip(REACH, coarser.width - 1 - REACH)
        centre = above * coarser.width + left
        place = np.searchsorted(coarser.targets, centre).clip(max=len(coarser.targets) - 1)
        down, across = np.divmod(coarser.matches[place], coarser.width)
        down, across = 2 * (down - above) + rows, 2 * (across - left) + columns
        known = (coarser.targets[place] == centre) & self._valid(down, across)
        self.matches = np.where(known, down * self.width + across, rng.choice(self.sources, len(self.targets)))
        self.errors = np.where(known, coarser.errors[place], np.inf)
        if len(self.targets) <= MAX_PATCHES:
            larger = cv2.resize(coarser.image, self.hole.shape[::-1], interpolation=cv2.INTER_LINEAR)
            self.image[self.hole] = larger[self.hole]
            self._compare_by(self.confidence)
            self._refine(rounds, rng)

    def average(self, best: bool = False) -> None:
        """Makes each pixel of the hole the weighted mean of the patches over it, or, to keep it sharp, the `best`."""
        certainty = np.zeros(self.hole.size, np.float32)
        typical = np.quantile(self.errors[np.isfinite(self.errors)], 0.75) + _EPSILON
        certainty[self.targets] = np.exp(-self.errors / (2 * typical)) * self.confidence.ravel()[self.targets]
        source = np.zeros(self.hole.size, np.int64)
        source[self.targets] = self.matches
        rows, columns = np.nonzero(self.hole)
        pixels = self.image.reshape(-1, 3)
        values, total = self.image[self.hole], np.full(len(rows), _EPSILON, np.float32)
        for down, across in np.ndindex(PATCH, PATCH):
            row, column = rows - (down - REACH), columns - (across - REACH)  # of the centre
            inside = (row >= 0) & (row < len(self.hole)) & (column >= 0) & (column < self.width)
            centre = np.where(inside, row * self.width + column, 0)
            weight = np.where(inside, certainty[centre], 0)
            offset = (down - REACH) * self.width + across - REACH
            value = pixels[(source[centre] + offset).clip(0, len(pixels) - 1)]
            share = weight > total if best else (weight / (total := total + weight))
            values += (value - values) * share[:, None]
            if best:
                total = np.maximum(total, weight)
        self.image[self.hole] = values

    def _refine(self, rounds: int, rng: np.random.Generator) -> None:
        """Averages, compares and searches in turn."""
        for _ in range(rounds):
            self.average()
            self._compare_by(self.confidence)
            self._search(rng)
        self.average()

    def _compare_by(self, weights: Array) -> None:
        """Describes the targets as they are, whose pixels count by `weights` (H,W), and updates the errors."""
        self._wanted = self._patches(self.image, self.targets)
        counted = self._patches(np.repeat(weights[..., None], 3, axis=-1), self.targets) + _EPSILON
        self._weights = np.sqrt(counted / counted.sum(1, keepdims=True) * 3)
        self.errors = self._differences(self.matches)

    def _differences(self, sources: Array) -> Array:
        """By how much each target differs from a source: (T,) -> (T,)."""
        difference = (self._patches(self.image, sources) - self._wanted) * self._weights
        low = self._low[sources] - self._wanted_low
        strength = self._strength[sources] - self._wanted_strength
        errors = np.einsum("ij,ij->i", difference, difference) + LOW_FREQUENCIES * np.einsum("ij,ij->i", low, low)
        return np.asarray(errors + TEXTURE * strength**2)

    def _patches(self, image: Array, centres: Array) -> Array:
        """The values of patches of (H,W,3): (T,) -> (T,3 * PATCH**2)."""
        windows = sliding_window_view(image.reshape(len(image), -1), (PATCH, 3 * PATCH))
        rows, columns = np.divmod(centres, self.width)
        return windows[rows - REACH, 3 * (columns - REACH)].reshape(len(centres), -1)

    def _search(self, rng: np.random.Generator) -> None:
        """PatchMatch: tries the matches of neighbours, then random ones ever closer to the present."""
        for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            neighbour = self.targets + down * self.width + across
            place = np.searchsorted(self.targets, neighbour).clip(max=len(self.targets) - 1)
            row, column = np.divmod(self.matches[place], self.width)
            self._try(row - down, column - across, self.targets[place] == neighbour)
        reach = max(self.hole.shape)
        while reach:
            row, column = np.divmod(self.matches, self.width)
            shifts = rng.integers(-reach, reach + 1, (2, len(row)))
            self._try(row + shifts[0], column + shifts[1], True)
            reach //= 2

    def _try(self, rows: Array, columns: Array, allowed: Array | bool) -> None:
        """Takes those sources that match better."""
        tried = np.where(allowed & self._valid(rows, columns), rows * self.width + columns, self.matches)
        errors = self._differences(tried)
        better = errors < self.errors
        self.matches, self.errors = np.where(better, tried, self.matches), np.where(better, errors, self.errors)

    def _valid(self, rows: Array, columns: Array) -> Array:
        height, width = self.hole.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return np.asarray(inside & self.is_source[rows.clip(0, height - 1), columns.clip(0, width - 1)])


def _touching(area: Array, side: int) -> Array:
    """Centres of the squares of `side` pixels that touch an area (H,W) bool."""
    return cv2.dilate(area.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def _known_mean(values: Array, known: Array, sigma: float) -> Array:
    """A Gaussian mean of `values` (H,W,C) float32 over pixels that are `known` (H,W) float32."""
    weight = cv2.GaussianBlur(known, (0, 0), sigma)
    mean = cv2.GaussianBlur(values * known[..., None], (0, 0), sigma).reshape(values.shape)
    return np.asarray(mean / np.maximum(weight, _EPSILON)[..., None])
