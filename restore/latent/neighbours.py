"""Nearest codes: search, duplicates, and codes of bits for semantic hashing (Salakhutdinov and Hinton 2009)."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from restore.errors import RestoreError, UsageError
from restore.evaluation.page import write_bytes
from restore.latent.data import equal_contrast
from restore.latent.extras import need
from restore.latent.model import Latent

LARGE = 100_000  # codes above which usearch looks, which compares each query with a few of them
ITERATIONS = 30  # of the rotation
# What numpy and zipfile raise for a damaged file: RuntimeError where a bit says that it is encrypted, or by an unknown
# method; AttributeError (Python 3.10) or TypeError for an array alone.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    AttributeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


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


def expanded(gallery: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """Each of `codes` (Q,D) as the mean of the `count` codes of `gallery` (N,D) that are nearest to it.

    For queries this is query expansion (Chum et al. 2007), for the gallery itself database-side feature augmentation
    (Arandjelovic and Zisserman 2012): what a code shares with its neighbours stays, what is its own averages out.
    """
    means: np.ndarray = gallery[nearest(gallery, codes, count)[0]].mean(1)
    return means


def fit_hash(codes: np.ndarray, bits: int, seed: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """Bits for codes by iterative quantisation (Gong and Lazebnik 2011): signs on axes where these lose least.

    Up to as many bits as a code has numbers these are the principal components, rotated; beyond that, one such set
    of axes after another, from other rotations.

    Args:
        codes: (N,D).
        bits: A multiple of 8.
        seed: Of the first rotations.

    Returns:
        A function that makes packed bits (Q,bits/8) uint8 of codes (Q,D).
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
    chosen = np.concatenate(sets, axis=1)
    return lambda others: np.packbits((others - mean) @ chosen > 0, axis=1)


def hamming(gallery: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, for packed bits (N,bytes) and (Q,bytes), by how many bits differ; of equal ones the first."""
    numbers, distances = [], []
    for query in queries:
        differing = np.bitwise_count(gallery ^ query).sum(1, dtype=np.int32)
        numbers.append(differing.argsort(kind="stable")[:count])
        distances.append(differing[numbers[-1]])
    return np.array(numbers), np.array(distances)


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
    first, place = np.nonzero(distances <= threshold * np.median(distances[:, 1]))
    links = coo_array((np.ones(len(first)), (first, numbers[first, place])), (len(codes), len(codes)))
    _, groups = connected_components(links, directed=False)
    members = [np.flatnonzero(groups == group).tolist() for group in np.flatnonzero(np.bincount(groups) > 1)]
    return sorted(members)


@dataclass(frozen=True, eq=False)
class Index:
    """Codes of a folder, kept in a file.

    Attributes:
        codes: (N,D) float32.
        paths: Of the pictures.
        model: Name of the weights they were made by.
        digest: Of these weights.
    """

    codes: np.ndarray
    paths: list[str]
    model: str
    digest: str


def index_of(latent: Latent, folder: Path, report: Callable[[str], None]) -> Index:
    """The codes of all pictures below `folder`, at the same contrast; see `read_folder`."""
    pictures = latent.read(folder, report)
    codes = latent.encode(equal_contrast(pictures.pixels))
    return Index(codes, [str(path) for path in pictures.paths], latent.name, latent.digest)


def write_index(path: Path, index: Index) -> None:
    """Writes an index; the file appears whole or not at all."""
    target = io.BytesIO()
    paths, model, digest = map(np.array, (index.paths, index.model, index.digest))
    np.savez(target, codes=index.codes, paths=paths, model=model, digest=digest)
    write_bytes(path, target.getvalue())


def read_index(path: Path, latent: Latent) -> Index:
    """The index in a file.

    Raises:
        RestoreError: It cannot be read.
        UsageError: Its codes are not those of `latent`.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            paths = [str(name) for name in stored["paths"]]
            index = Index(stored["codes"], paths, str(stored["model"]), str(stored["digest"]))
    except _UNREADABLE as error:
        raise RestoreError(
            f"{path}: not a readable index; `restore latent index FOLDER -o {path}` makes one"
        ) from error
    if index.digest != latent.digest or index.codes.shape != (len(index.paths), latent.config.code):
        raise UsageError(f"{path}: was made with other weights, {index.model}; name those with -m, or make it anew")
    return index
