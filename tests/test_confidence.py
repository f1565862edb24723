"""Classification of detections as watermarks or objects of the scene."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from restore import weights
from restore.images import read_image
from restore.tasks.base import Picture, WholePredictor
from restore.tasks.dewatermark.confidence import (
    CONFIDENT_LOG_ODDS,
    DISTANCE,
    Evidence,
    contrast_across,
    watermark_confidence,
)
from restore.tasks.dewatermark.task import DewatermarkHead, detect_marks
from restore.tasks.mask_detection import LEVELS

MARK = Evidence(first=7.5, certain=np.log(0.5), agreed=0.8, related=np.arctanh(0.97), erased=np.log(2))


def passes(first: float, second: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits and masks of both passes: a block that is larger in the second."""
    one, two = (np.full((100, 120), -8 * LEVELS, np.int8) for _ in range(2))
    one[20:40, 20:60] = int(first * LEVELS)
    two[20:50, 20:60] = int(second * LEVELS)
    return one, one > 0, two, two > 0


def test_features():
    found = watermark_confidence(*passes(first=5.0, second=3.0), correlation=0.9, erased=0.3)
    assert found.first == pytest.approx(5.0)
    assert found.agreed == pytest.approx(20 / 30)
    assert found.related == pytest.approx(np.arctanh(0.9))
    assert found.erased == 0.3
    assert found.certain < np.log(0.01), "a logit of 3 is not certain"
    assert watermark_confidence(*passes(first=5.0, second=6.0), correlation=0.9, erased=0.3).certain == pytest.approx(
        0, abs=0.01
    )


def test_threshold_of_the_log_odds():
    assert (
        watermark_confidence(*passes(first=7.5, second=7.0), correlation=0.97, erased=0.7).log_odds > CONFIDENT_LOG_ODDS
    )
    assert (
        watermark_confidence(*passes(first=4.6, second=3.0), correlation=0.7, erased=0.1).log_odds < CONFIDENT_LOG_ODDS
    )


LESS = [{"first": 4.0}, {"certain": np.log(0.01)}, {"agreed": 0.1}, {"related": 0.7}, {"erased": 0.0}]


@pytest.mark.parametrize("less", LESS)
def test_every_feature_counts(less):
    assert replace(MARK, **less).log_odds < MARK.log_odds


@pytest.mark.parametrize("correlation", [-0.3, 1.0])
def test_extreme_correlations_have_finite_odds(correlation):
    assert np.isfinite(
        watermark_confidence(*passes(first=5.0, second=5.0), correlation=correlation, erased=0.0).log_odds
    )


def test_contrast_across():
    """0 on a flat image, proportional to a step, independent of distant pixels, equal for rows and columns."""
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:60] = True
    flat = np.full((60, 80, 3), 0.4, np.float32)
    assert contrast_across(mask, flat) == 0
    faint, strong = (flat + height * mask[..., None].astype(np.float32) for height in (0.1, 0.3))
    assert contrast_across(mask, strong) == pytest.approx(3 * contrast_across(mask, faint), rel=1e-4)
    assert contrast_across(mask.T, strong.swapaxes(0, 1)) == pytest.approx(contrast_across(mask, strong), rel=1e-4)
    strong[30, 40] = 1
    strong[:5] = 1
    assert contrast_across(mask, strong) == pytest.approx(3 * contrast_across(mask, faint), rel=1e-4)
    assert contrast_across(mask[:DISTANCE], flat[:DISTANCE]) == 0, "smaller than the distance"


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_removal_reduces_the_contrast_across_the_border(name):
    """In a marked sample the contrast drops; in the clean one nothing is detected, or what is believed less."""
    _, network = weights.load(weights.find("dewatermark", None))
    head = DewatermarkHead()
    predict = WholePredictor(network.eval(), head)
    marked, clean = (
        detect_marks(Picture.of(read_image(ROOT / "samples" / kind / f"{name}.png").pixels), predict, head)
        for kind in ("marked", "clean")
    )
    assert marked is not None
    assert marked.evidence.log_odds > CONFIDENT_LOG_ODDS
    assert marked.evidence.erased > np.log(1.5)
    assert clean is None or clean.evidence.log_odds < min(CONFIDENT_LOG_ODDS, marked.evidence.log_odds - 1)
