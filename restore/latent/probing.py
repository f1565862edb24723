"""What unsupervised pretraining is worth where labels are few: linear and fine-tuned classifiers beside raw pixels."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from restore.latent.data import Pictures, to_planes
from restore.latent.extras import need
from restore.latent.model import Latent
from restore.latent.networks import LatentAutoencoder

REGULARISATION = (0.01, 0.1, 1.0, 10.0)  # C of the linear classifiers
RATES = (3e-4, 1e-3, 3e-3)  # learning rates of fine-tuning
FINE_STEPS = 80
HELD_OUT = 0.3  # of the labelled pictures, to choose among those by
HEAD_RATE = 10.0  # of the new layer, times that of the others
# Of a setting, learnt from pictures and labels, on others.
Accuracy = Callable[[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]


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
    fresh = LatentAutoencoder(latent.config)
    fresh.mean.copy_(latent.network.mean)  # the mean picture is no weight
    random = Latent(fresh, latent.device)
    ours, theirs = learn.pixels[few], test.pixels
    views = {
        "raw pixels, linear": (ours.reshape(len(few), -1) / 255, theirs.reshape(len(theirs), -1) / 255),
        "random weights, linear": (random.encode(ours), random.encode(theirs)),
        "pretrained, linear": (latent.encode(ours), latent.encode(theirs)),
    }
    found = {}
    for name, (rows, others) in views.items():
        mean, deviation = rows.mean(0), rows.std() + 1e-9
        rows, others = (rows - mean) / deviation, (others - mean) / deviation
        found[name] = _with_best(REGULARISATION, _linear, rows, known[few], others, wanted)
    for name, start in (("random weights, fine-tuned", random), ("pretrained, fine-tuned", latent)):
        tuned = partial(_tuned, network=start.network, classes=len(classes), seed=seed)
        found[name] = _with_best(RATES, tuned, ours, known[few], theirs, wanted)
    return found


def _with_best(
    settings: Sequence[float],
    accuracy: Accuracy,
    few: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    wanted: np.ndarray,
) -> float:
    """Accuracy on `test` by the setting that is best on a part of the labelled pictures held out from it."""
    held = max(1, round(HELD_OUT * len(few)))
    best = max(settings, key=lambda value: accuracy(value, few[held:], labels[held:], few[:held], labels[:held]))
    return accuracy(best, few, labels, test, wanted)


def _linear(strength: float, few: np.ndarray, labels: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> float:
    """Of a linear classifier on codes or pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that could go on
        fitted = need("sklearn.linear_model").LogisticRegression(C=strength, max_iter=200).fit(few, labels)
    return float((fitted.predict(test) == wanted).mean())


def _tuned(
    rate: float,
    few: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    wanted: np.ndarray,
    *,
    network: LatentAutoencoder,
    classes: int,
    seed: int,
) -> float:
    """Of an encoder with a linear layer behind it, both trained on the labelled pictures."""
    torch.manual_seed(seed)
    encoder = copy.deepcopy(network).train().requires_grad_(True)
    device = encoder.mean.device
    head = nn.Linear(encoder.config.code, classes).to(device)
    pictures, targets = to_planes(few).to(device), torch.from_numpy(labels).to(device)
    scale = encoder.encode(pictures).std().detach() + 1e-6
    body = [*encoder.down.parameters(), *encoder.encoder.parameters()]
    groups: list[dict[str, Any]] = [{"params": body}, {"params": list(head.parameters()), "lr": HEAD_RATE * rate}]
    optimizer = torch.optim.AdamW(groups, rate)
    for _ in range(FINE_STEPS):
        optimizer.zero_grad()
        F.cross_entropy(head(encoder.encode(pictures) / scale), targets).backward()
        optimizer.step()
    with torch.no_grad():
        said = head(encoder.encode(to_planes(test).to(device)) / scale).argmax(1).cpu().numpy()
    return float((said == wanted).mean())
