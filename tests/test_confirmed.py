"""What is taken for a mark, and what for a thing in the picture."""

from dataclasses import replace

import numpy as np
import pytest

from restore.tasks.confirmed import BELIEVED, Evidence, evidence
from restore.tasks.found import LEVELS

MARK = Evidence(first=7.5, certain=np.log(0.5), agreed=0.8, related=np.arctanh(0.97))


def looks(first: float, second: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits of both looks, and masks: a block that the second look sees larger."""
    said, again = (np.full((100, 120), -8 * LEVELS, np.int8) for _ in range(2))
    said[20:40, 20:60] = int(first * LEVELS)
    again[20:50, 20:60] = int(second * LEVELS)
    return said, said > 0, again, again > 0


def test_figures_are_what_they_say():
    found = evidence(*looks(first=5.0, second=3.0), correlation=0.9)
    assert found.first == pytest.approx(5.0)
    assert found.agreed == pytest.approx(20 / 30)
    assert found.related == pytest.approx(np.arctanh(0.9))
    assert found.certain < np.log(0.01), "a logit of 3 is no certainty"
    assert evidence(*looks(first=5.0, second=6.0), correlation=0.9).certain == pytest.approx(0, abs=0.01)


def test_a_mark_is_believed_and_a_lattice_is_not():
    assert evidence(*looks(first=7.5, second=7.0), correlation=0.97).odds > BELIEVED
    assert evidence(*looks(first=4.6, second=3.0), correlation=0.7).odds < BELIEVED


@pytest.mark.parametrize("less", [{"first": 4.0}, {"certain": np.log(0.01)}, {"agreed": 0.1}, {"related": 0.7}])
def test_every_figure_counts(less):
    assert replace(MARK, **less).odds < MARK.odds


@pytest.mark.parametrize("correlation", [-0.3, 1.0])
def test_any_correlation_has_odds(correlation):
    assert np.isfinite(evidence(*looks(first=5.0, second=5.0), correlation=correlation).odds)
