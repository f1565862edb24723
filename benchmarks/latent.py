"""The autoencoder family on digits: the figures of the section "latent" in RESULTS.md.

    python benchmarks/latent.py [reconstruct search anomalies probe samples] [--seeds 0,1,2]
    python benchmarks/latent.py pythae --seeds 0     needs the package pythae
    python benchmarks/latent.py --codec codec.safetensors

Needs `digits/train` and `digits/test` below RESTORE_DATA. Prints a line a figure and seed, then the means. All choices
(best weights, regularisation) are made on a twentieth of the training pictures. `--codec` prints the levels of a codec
on `bench/CBSD68` instead, beside JPEG and WebP that may have a little more bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from restore.latent import generating, probing
from restore.latent.anomalies import scores
from restore.latent.compression import Coder, beside, load_codec, names_of, read_pictures, to_bytes
from restore.latent.data import Pictures, equal_contrast, read_folder, silent, to_planes
from restore.latent.kinds.variational import importance_weighted
from restore.latent.model import Latent, load_latent
from restore.latent.neighbours import expanded, fit_hash, hamming, nearest
from restore.latent.options import ModelOptions, TrainingOptions
from restore.latent.training import train
from restore.metrics import psnr
from restore.training.data import list_pictures

SIDE = 28
NEIGHBOURS = 10
CODE = 32
BITS = 64
EXPAND = 2
SURE = 0.9
JUDGE_STEPS = 800


@cache
def digits() -> tuple[Pictures, Pictures, Pictures]:
    """To learn from, to choose by, to report on."""
    root = Path(os.environ["RESTORE_DATA"]) / "digits"
    known, test = (read_folder(root / part, SIDE, 1) for part in ("train", "test"))
    return *known.split(), test


def flat(pictures: Pictures) -> np.ndarray:
    """(N,784) in [0,1]."""
    return pictures.pixels.reshape(len(pictures), -1).astype(np.float32) / 255


def fitted(learn: Pictures, choose: Pictures, seed: int, steps: int, **more: object) -> Latent:
    """An autoencoder trained with `more` options of model and training."""
    ways = {name: more.pop(name) for name in list(more) if name in TrainingOptions.__dataclass_fields__}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "latent.safetensors"
        model = ModelOptions(**more)  # type: ignore[arg-type]
        training = TrainingOptions(output=output, steps=steps, seed=seed, device="cpu", **ways)  # type: ignore[arg-type]
        train(learn, choose, model, training, report=silent, bar=True)
        return load_latent(output, "cpu")


@cache
def plain(code: int, seed: int) -> Latent:
    """The undercomplete autoencoder that several figures share."""
    learn, choose, _ = digits()
    steps = {2: 1500, 8: 1000, 32: 2500}[code]
    return fitted(learn, choose, seed, steps, code=code, widths=(512, 256))


def reconstruct(seed: int) -> dict[str, float]:
    """Error on the test digits as a share of PCA's."""
    learn, choose, test = digits()
    found = {}
    for code in (2, 8, CODE):
        pca = PCA(code, random_state=0).fit(np.concatenate([flat(learn), flat(choose)]))
        theirs = ((flat(test) - pca.inverse_transform(pca.transform(flat(test)))) ** 2).mean()
        found[f"code {code}: error over PCA's"] = float(plain(code, seed).errors(test.pixels).mean() / theirs)
    return found


def precision(near: np.ndarray, known: Pictures, test: Pictures) -> float:
    """Mean share of the neighbours (Q,count) that are of the query's class."""
    return float((np.array(known.labels)[near] == np.array(test.labels)[:, None]).mean())


def search(seed: int) -> dict[str, float]:
    """Precision at 10 of test digits among those learnt from: codes and PCA of the same size, and the bits of each."""
    learn, _, test = digits()
    latent = plain(CODE, seed)
    found = {}
    for contrast, pixels in (
        ("", [learn.pixels, test.pixels]),
        (", equal contrast", [equal_contrast(part.pixels) for part in (learn, test)]),
    ):
        rows = [part.reshape(len(part), -1) / 255 for part in pixels]
        pca = PCA(CODE, random_state=0).fit(rows[0])
        for name, (codes, queries) in {
            f"PCA {CODE}": map(pca.transform, rows),
            f"code {CODE}": map(latent.encode, pixels),
        }.items():
            around = [expanded(codes, part, EXPAND) for part in (codes, queries)]
            for way, (gallery, asked) in {"": (codes, queries), f", --expand {EXPAND}": around}.items():
                to_bits = fit_hash(gallery, BITS, seed)
                near = nearest(gallery, asked, NEIGHBOURS)[0], hamming(to_bits(gallery), to_bits(asked), NEIGHBOURS)[0]
                for label, numbers in zip((name, f"{BITS} bits of {name}"), near, strict=True):
                    found[f"{label}{contrast}{way}"] = precision(numbers, learn, test)
    return found


def anomalies(seed: int) -> dict[str, float]:
    """Mean over the digits of the ROC AUC where an autoencoder has seen one digit only; PCA by the same scores."""
    learn, choose, test = digits()
    found: dict[str, list[float]] = {}
    contrast = test.pixels.std((1, 2, 3)) / 255
    for digit in test.classes:
        usual, judge = (part.subset(np.flatnonzero(np.array(part.labels) == digit)) for part in (learn, choose))
        odd = np.array(test.labels) != digit
        latent = fitted(usual, judge, seed, 400, code=CODE, widths=(128,), batch_size=64)
        pca = PCA(CODE, random_state=0).fit(flat(usual))
        theirs = ((flat(test) - pca.inverse_transform(pca.transform(flat(test)))) ** 2).mean(1)
        for label, values in {
            "autoencoder, relative": scores(latent, test.pixels)[0],
            "autoencoder, error": scores(latent, test.pixels, relative=False)[0],
            "PCA, relative": theirs / contrast,
            "PCA, error": theirs,
        }.items():
            found.setdefault(label, []).append(roc_auc_score(odd, values))
    return {label: float(np.mean(areas)) for label, areas in found.items()}


def probe(seed: int) -> dict[str, float]:
    """Accuracy with ten labels a class, the mean of five draws of them."""
    learn, choose, test = digits()
    latent = fitted(learn, choose, seed, 700, code=CODE, widths=(512, 256), kind="denoising", damage="move", amount=0.1)
    draws = [probing.probe(latent, learn, test, 10, draw) for draw in range(5)]
    return {name: float(np.mean([one[name] for one in draws])) for name in draws[0]}


@cache
def judge() -> torch.nn.Module:
    """A small convolutional classifier of digits, to look at samples with."""
    learn, choose, test = digits()
    planes = torch.cat([learn.planes, choose.planes])
    targets = torch.tensor([int(label) for label in learn.labels + choose.labels])
    torch.manual_seed(0)
    layers = torch.nn
    network = layers.Sequential(
        *(layers.Conv2d(1, 16, 3, 2, 1), layers.ReLU(), layers.Conv2d(16, 32, 3, 2, 1), layers.ReLU()),
        *(layers.Flatten(), layers.Linear(32 * 49, 128), layers.ReLU(), layers.Linear(128, 10)),
    )
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(JUDGE_STEPS):
        chosen = torch.randint(len(planes), (64,), generator=draw)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(planes[chosen]), targets[chosen]).backward()
        optimizer.step()
    right = (certainty(network, test.pixels)[1] == np.array([int(label) for label in test.labels])).mean()
    print(f"the classifier is right on {right:.4f} of the test digits", flush=True)
    return network


@torch.no_grad()
def certainty(network: torch.nn.Module, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest probability that a classifier gives each picture, and to which class."""
    best = network(to_planes(pixels)).softmax(1).max(1)
    return best.values.numpy(), best.indices.numpy()


def samples(seed: int) -> dict[str, float]:
    """Share of 64 samples of which the classifier is sure, and that of real digits."""
    learn, choose, test = digits()
    more = {"kind": "variational", "loss": "bce", "code": 6, "widths": (512, 256), "batch_size": 64, "lr": 2e-3}
    latent = fitted(learn, choose, seed, 2500, **more)
    drawn = generating.sample(latent, 64, seed)
    shares = {"samples": drawn, "real test digits": test.pixels}
    return {label: float((certainty(judge(), pixels)[0] > SURE).mean()) for label, pixels in shares.items()}


def pythae(seed: int) -> dict[str, float]:
    """Its undercomplete and variational autoencoders by its own trainer, and ours: equal layers, steps and batches."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import AE, VAE, AEConfig, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    learn, choose, test = digits()
    shape, steps, batch = (1, SIDE, SIDE), 2000, 128
    known = BaseDataset(learn.planes, torch.zeros(len(learn)))

    def trained(build: Callable[[], Any]) -> Any:
        torch.manual_seed(seed)
        model = build()
        with tempfile.TemporaryDirectory() as folder:
            plan = {"per_device_train_batch_size": batch, "learning_rate": 1e-3, "seed": seed, "no_cuda": True}
            config = BaseTrainerConfig(output_dir=folder, num_epochs=round(steps * batch / len(learn)), **plan)
            BaseTrainer(model, known, training_config=config).train()
        torch.manual_seed(seed)
        with torch.no_grad():
            return model.eval()({"data": test.planes})

    theirs = trained(lambda: AE(AEConfig(shape, CODE)))
    theirs_drawn = trained(lambda: VAE(VAEConfig(shape, CODE, reconstruction_loss="bce")))
    # Its learning rate is constant; ours rises to its peak and falls, to the same mean.
    ways = {"widths": (512,), "batch_size": batch, "lr": 2e-3, "code": CODE}
    ours = fitted(learn, choose, seed, steps, **ways)
    ours_drawn = fitted(learn, choose, seed, steps, **ways, kind="variational", loss="bce")
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        bound = importance_weighted(ours_drawn.network, test.planes, 1, draw)
    return {
        "pythae, undercomplete, squared error": float((theirs.recon_x - test.planes).square().mean()),
        "ours, undercomplete, squared error": float(ours.errors(test.pixels).mean()),
        "pythae, variational, minus the evidence lower bound in nats": float(theirs_drawn.loss),
        "ours, variational, minus the evidence lower bound in nats": -float(bound.mean()),
    }


def codec(path: Path) -> None:
    """Prints a row for each level of a codec: bits a pixel and PSNR on CBSD68, beside JPEG and WebP."""
    network, device = load_codec(path, "cpu")
    paths = list_pictures([Path(os.environ["RESTORE_DATA"]) / "bench" / "CBSD68"])
    pictures = [pixels for _, pixels in read_pictures(paths, print, print)]
    area = sum(picture.shape[0] * picture.shape[1] for picture in pictures)
    print("| level | bit a pixel | PSNR (dB) | JPEG: bit a pixel | PSNR | WebP: bit a pixel | PSNR |")
    for level in range(network.config.levels):
        coder = Coder(network, level, device)
        names = names_of(paths, paths[0].parent).values()
        packed = [coder.pack(name, picture) for name, picture in zip(names, pictures, strict=True)]
        size = len(to_bytes(packed, level, network.digest(level)))
        scores = [psnr(coder.unpack(one), picture) for one, picture in zip(packed, pictures, strict=True)]
        measured = [(size, scores), *(beside(paths, size, format)[1:] for format in ("jpeg", "webp"))]
        cells = " | ".join(f"{8 * size / area:.3f} | {np.mean(scores):.2f}" for size, scores in measured)
        print(f"| {level + 1} | {cells} |", flush=True)


FIGURES: dict[str, Callable[[int], dict[str, float]]] = {
    "reconstruct": reconstruct,
    "search": search,
    "anomalies": anomalies,
    "probe": probe,
    "samples": samples,
    "pythae": pythae,
}


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "figures", nargs="*", default=[name for name in FIGURES if name != "pythae"], help=", ".join(FIGURES)
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--codec", type=Path, help="weights of `restore latent train-codec`")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    if flags.codec:
        codec(flags.codec)
        return 0
    all_found: dict[str, list[float]] = {}
    for name in flags.figures:
        for seed in map(int, flags.seeds.split(",")):
            start = time.process_time()
            for label, value in FIGURES[name](seed).items():
                all_found.setdefault(f"{name}: {label}", []).append(value)
                print(f"{name}, seed {seed}: {label} {value:.4f}", flush=True)
            print(f"{name}, seed {seed}: {time.process_time() - start:.0f} CPU seconds", flush=True)
    for label, values in all_found.items():
        print(f"{label}: {np.mean(values):.4f}, mean of {len(values)} ({min(values):.4f} to {max(values):.4f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
