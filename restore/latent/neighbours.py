"""Nearest codes: search, duplicates, and codes of bits for semantic hashing (Salakhutdinov and Hinton 2009)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore.errors import RestoreError, UsageError
from restore.latent.extras import need
from restore.latent.views import write_bytes

LARGE = 100_000  # codes from which on usearch looks, where it is installed
ITERATIONS = 30  # of the rotation
CHUNK = 256  # queries compared at once
POPCOUNT = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def nearest(gallery: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest codes by Euclidean distance.

    Args:
        gallery: (N,D).
        queries: (Q,D).
        count: How many for each; fewer where the gallery is smaller.

    Returns:
        Numbers (Q,count) and distances (Q,count), nearest first.
    """
    count = min(count, len(gallery))
    if len(gallery) > LARGE:
        index = need("usearch.index").Index(ndim=gallery.shape[1], metric="l2sq")
        index.add(np.arange(len(gallery)), gallery)
        found = index.search(queries, count)
        return np.atleast_2d(found.keys).astype(int), np.sqrt(np.atleast_2d(found.distances))
    looked = need("sklearn.neighbors").NearestNeighbors(n_neighbors=count).fit(gallery)
    distances, numbers = looked.kneighbors(queries)
    return numbers, distances


@dataclass(frozen=True, eq=False)
class Hash:
    """From codes to bits.

    Attributes:
        mean: (D,) of the codes it was made for.
        axes: (D,bits); a bit says on which side of an axis' zero a code lies.
    """

    mean: np.ndarray
    axes: np.ndarray

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """(N,D) -> (N,bits/8) uint8, packed."""
        return np.packbits((codes - self.mean) @ self.axes > 0, axis=1)


def fit_hash(codes: np.ndarray, bits: int, seed: int = 0) -> Hash:
    """Axes on which codes lose least when only their signs are kept: iterative quantisation (Gong and Lazebnik 2011).

    Up to as many bits as a code has numbers these are the principal components, rotated; beyond that, one such set
    of axes after another, from other rotations.

    Args:
        codes: (N,D).
        bits: A multiple of 8.
        seed: Of the first rotations.
    """
    mean = codes.mean(0)
    centred = (codes - mean).astype(np.float64)
    _, components = np.linalg.eigh(centred.T @ centred)
    rng = np.random.default_rng(seed)
    sets: list[np.ndarray] = []
    while (have := sum(part.shape[1] for part in sets)) < bits:
        axes = components[:, ::-1][:, : bits - have]
        projected = centred @ axes
        rotation = np.linalg.qr(rng.standard_normal((axes.shape[1],) * 2))[0]
        for _ in range(ITERATIONS):
            left, _, right = np.linalg.svd(np.sign(projected @ rotation).T @ projected)
            rotation = (left @ right).T
        sets.append(axes @ rotation)
    return Hash(mean, np.concatenate(sets, axis=1))


def hamming(gallery: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, for packed bits (N,bytes) and (Q,bytes), by the number of bits that differ."""
    count = min(count, len(gallery))
    numbers, distances = [], []
    for start in range(0, len(queries), CHUNK):
        differing = POPCOUNT[queries[start : start + CHUNK, None] ^ gallery[None]].sum(2, dtype=np.int32)
        order = differing.argsort(1, kind="stable")[:, :count]
        numbers.append(order)
        distances.append(np.take_along_axis(differing, order, 1))
    return np.concatenate(numbers), np.concatenate(distances)


def duplicates(codes: np.ndarray, threshold: float) -> list[list[int]]:
    """Groups of codes that lie much closer to each other than codes usually do.

    Args:
        codes: (N,D).
        threshold: Two are alike where their distance is below this share of the median distance to a nearest code.

    Returns:
        Numbers in each group, the groups by their first.
    """
    if len(codes) < 2:
        return []
    numbers, distances = nearest(codes, codes, 6)
    scale = float(np.median(distances[:, 1]))
    group = list(range(len(codes)))

    def root(number: int) -> int:
        while group[number] != number:
            number = group[number]
        return number

    for first, (others, apart) in enumerate(zip(numbers, distances, strict=True)):
        for other, distance in zip(others, apart, strict=True):
            if other != first and distance <= threshold * scale:
                low, high = sorted((root(first), root(int(other))))
                group[high] = low
    found: dict[int, list[int]] = {}
    for number in range(len(codes)):
        found.setdefault(root(number), []).append(number)
    return [members for members in found.values() if len(members) > 1]


@dataclass(frozen=True, eq=False)
class Index:
    """Codes of a folder, kept in a file.

    Attributes:
        codes: (N,D) float32.
        paths: Of the pictures.
        model: Name of the weights they were made by.
    """

    codes: np.ndarray
    paths: list[str]
    model: str


def write_index(path: Path, index: Index) -> None:
    """Writes an index; the file appears whole or not at all."""
    target = io.BytesIO()
    np.savez(target, codes=index.codes, paths=np.array(index.paths), model=np.array(index.model))
    write_bytes(path, target.getvalue())


def read_index(path: Path, dimensions: int) -> Index:
    """The index in a file.

    Raises:
        RestoreError: It cannot be read.
        UsageError: Its codes are not of `dimensions` numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            index = Index(stored["codes"], [str(name) for name in stored["paths"]], str(stored["model"]))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RestoreError(
            f"{path}: not a readable index; `restore latent index FOLDER -o {path}` makes one"
        ) from error
    if index.codes.ndim != 2 or index.codes.shape[1] != dimensions:
        raise UsageError(
            f"{path}: an index of codes of {index.codes.shape[-1]}, by {index.model}; these have {dimensions}"
        )
    return index
