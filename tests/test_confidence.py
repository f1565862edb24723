"""What is taken for a mark, and what for a thing in the picture."""

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


def looks(first: float, second: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits of both looks, and masks: a block that the second look sees larger."""
    said, again = (np.full((100, 120), -8 * LEVELS, np.int8) for _ in range(2))
    said[20:40, 20:60] = int(first * LEVELS)
    again[20:50, 20:60] = int(second * LEVELS)
    return said, said > 0, again, again > 0


def test_figures_are_what_they_say():
    found = watermark_confidence(*looks(first=5.0, second=3.0), correlation=0.9, erased=0.3)
    assert found.first == pytest.approx(5.0)
    assert found.agreed == pytest.approx(20 / 30)
    assert found.related == pytest.approx(np.arctanh(0.9))
    assert found.erased == 0.3
    assert found.certain < np.log(0.01), "a logit of 3 is no certainty"
    assert watermark_confidence(*looks(first=5.0, second=6.0), correlation=0.9, erased=0.3).certain == pytest.approx(
        0, abs=0.01
    )


def test_a_mark_is_believed_and_a_lattice_is_not():
    assert (
        watermark_confidence(*looks(first=7.5, second=7.0), correlation=0.97, erased=0.7).log_odds > CONFIDENT_LOG_ODDS
    )
    assert (
        watermark_confidence(*looks(first=4.6, second=3.0), correlation=0.7, erased=0.1).log_odds < CONFIDENT_LOG_ODDS
    )


LESS = [{"first": 4.0}, {"certain": np.log(0.01)}, {"agreed": 0.1}, {"related": 0.7}, {"erased": 0.0}]


@pytest.mark.parametrize("less", LESS)
def test_every_figure_counts(less):
    assert replace(MARK, **less).log_odds < MARK.log_odds


@pytest.mark.parametrize("correlation", [-0.3, 1.0])
def test_any_correlation_has_odds(correlation):
    assert np.isfinite(
        watermark_confidence(*looks(first=5.0, second=5.0), correlation=correlation, erased=0.0).log_odds
    )


def test_contrast_is_that_across_the_border():
    """Zero where both sides are alike, whatever lies further off; in proportion to a step; of rows as of columns."""
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
    assert contrast_across(mask[:DISTANCE], flat[:DISTANCE]) == 0, "smaller than what is compared"


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_undoing_a_mark_takes_its_border_away(name):
    """What is found in a marked sample; in the clean one nothing is, or what stays where it is."""
    _, network = weights.load(weights.find("dewatermark", None))
    head = DewatermarkHead()
    predict = WholePredictor(network.eval(), head)
    marked, clean = (
        detect_marks(Picture.of(read_image(ROOT / "samples" / kind / f"{name}.png").pixels), predict, head)
        for kind in ("marked", "clean")
    )
    assert marked is not None
    assert marked[1].log_odds > CONFIDENT_LOG_ODDS
    assert marked[1].erased > np.log(1.5)
    assert clean is None or clean[1].erased < marked[1].erased - 0.2
