"""What unsupervised pretraining is worth where labels are few: linear and fine-tuned classifiers beside raw pixels."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from restore.latent.data import Pictures, to_planes
from restore.latent.extras import need
from restore.latent.model import Latent
from restore.latent.networks import LatentAutoencoder
from restore.models import build

REGULARISATION = (0.01, 0.1, 1.0, 10.0)  # C of the linear classifiers
RATES = (3e-4, 1e-3, 3e-3)  # learning rates of fine-tuning
FINE_STEPS = 80
HELD_OUT = 0.3  # of the labelled pictures, to choose among those by
HEAD_RATE = 10.0  # of the new layer, times that of the others


def probe(latent: Latent, learn: Pictures, test: Pictures, labels: int, seed: int) -> dict[str, float]:
    """Accuracies of five classifiers that saw the same few labels, each with its own best setting.

    Args:
        latent: The pretrained autoencoder.
        learn: Labelled pictures, of which `labels` a class are drawn.
        test: Labelled pictures.
        labels: A class.
        seed: Of the draw and the random network.

    Returns:
        By name, from 0 to 1.
    """
    rng = np.random.default_rng(seed)
    classes = learn.classes
    known = np.array([classes.index(label) for label in learn.labels])
    wanted = np.array([classes.index(label) if label in classes else -1 for label in test.labels])
    few = np.concatenate([rng.permutation(np.flatnonzero(known == number))[:labels] for number in range(len(classes))])
    few = rng.permutation(few)
    torch.manual_seed(seed)
    fresh = build("latent-autoencoder", latent.config)
    assert isinstance(fresh, LatentAutoencoder)
    fresh.mean.copy_(latent.network.mean)  # the mean picture is no weight
    random = Latent(fresh, latent.device)
    ours, theirs = learn.pixels[few], test.pixels
    views = {
        "raw pixels, linear": (ours.reshape(len(few), -1) / 255, theirs.reshape(len(theirs), -1) / 255),
        "random weights, linear": (random.encode(ours), random.encode(theirs)),
        "pretrained, linear": (latent.encode(ours), latent.encode(theirs)),
    }
    found = {name: _linear(view[0], known[few], view[1], wanted) for name, view in views.items()}
    for name, start in (("random weights, fine-tuned", random), ("pretrained, fine-tuned", latent)):
        found[name] = _tuned(start.network, ours, known[few], theirs, wanted, len(classes), seed)
    return found


def _split(count: int) -> tuple[slice, slice]:
    """Labelled pictures to learn from and to choose by."""
    held = max(1, round(HELD_OUT * count))
    return slice(held, None), slice(0, held)


def _linear(few: np.ndarray, labels: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> float:
    linear_model = need("sklearn.linear_model")
    mean, deviation = few.mean(0), few.std() + 1e-9
    few, test = (few - mean) / deviation, (test - mean) / deviation
    learn, choose = _split(len(few))

    def accuracy(strength: float, rows: np.ndarray, names: np.ndarray, others: np.ndarray, true: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fit that could go on
            fitted = linear_model.LogisticRegression(C=strength, max_iter=200).fit(rows, names)
        return float((fitted.predict(others) == true).mean())

    best = max(REGULARISATION, key=lambda c: accuracy(c, few[learn], labels[learn], few[choose], labels[choose]))
    return accuracy(best, few, labels, test, wanted)


def _tuned(
    network: LatentAutoencoder,
    few: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    wanted: np.ndarray,
    classes: int,
    seed: int,
) -> float:
    learn, choose = _split(len(few))

    def accuracy(rate: float, rows: np.ndarray, names: np.ndarray, others: np.ndarray, true: np.ndarray) -> float:
        torch.manual_seed(seed)
        encoder = copy.deepcopy(network).train().requires_grad_(True)
        device = encoder.mean.device
        head = nn.Linear(encoder.config.code, classes).to(device)
        scale = encoder.encode(to_planes(rows).to(device)).std().detach() + 1e-6
        body = [*encoder.down.parameters(), *encoder.encoder.parameters()]
        groups: list[dict[str, Any]] = [{"params": body}, {"params": list(head.parameters()), "lr": HEAD_RATE * rate}]
        optimizer = torch.optim.AdamW(groups, rate)
        pictures, targets = to_planes(rows).to(device), torch.from_numpy(names).to(device)
        for _ in range(FINE_STEPS):
            optimizer.zero_grad()
            F.cross_entropy(head(encoder.encode(pictures) / scale), targets).backward()
            optimizer.step()
        with torch.no_grad():
            said = head(encoder.encode(to_planes(others).to(device)) / scale).argmax(1).cpu().numpy()
        return float((said == true).mean())

    best = max(RATES, key=lambda rate: accuracy(rate, few[learn], labels[learn], few[choose], labels[choose]))
    return accuracy(best, few, labels, test, wanted)
