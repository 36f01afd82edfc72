"""Images that are copies of one another, exactly or nearly.

Candidates are found by a difference hash, which compares the brightness of neighboring pixels of a
tiny image (dHash, N. Krawetz, "Kind of like that", 2013), here of 128 bits: 64 along rows and 64
along columns. All pairs are compared, so none is missed by an index. A pair within ``MAX_BITS`` is
confirmed if its thumbnails correlate, over pixels and colors, which ignores brightness and contrast
but not color. It survives scaling, encoding and slight crops; not mirroring or rotation.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from train.data.images import resize_area

MAX_BITS = 20  # of 128 that may differ; changed copies of photographs differ in 0 to 13
MIN_CORRELATION = 0.97
MIN_CORRELATION_SMALL = 0.99  # of images below 32 pixels, which have few details
SMALL = 32
MIN_DEVIATION = 2.0  # gray levels; images of one color, with less, are all alike
_BLOCK = 512
_PAIRS_PER_IMAGE = 50  # with more candidates, the images resemble one another too much


class TooManyCandidates(Exception):
    """The images resemble one another too much for a hash."""


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Return the difference hash, uint64 ``(2,)``, of a uint8 RGB image ``(H, W, 3)``."""
    across = _gray(resize_area(image, 9, 8))
    down = _gray(resize_area(image, 8, 9))
    bits = np.stack([across[:, 1:] > across[:, :-1], down[1:] > down[:-1]])
    return np.packbits(bits.reshape(2, 64), axis=1).view(np.uint64)[:, 0]


def exact_groups(digests: np.ndarray, readable: np.ndarray) -> list[list[int]]:
    """Return groups of two or more images with equal digests ``(N, 2)``."""
    members = np.flatnonzero(readable)
    _, group = np.unique(digests[members], axis=0, return_inverse=True)
    return _split(members, group.ravel())


def near_pairs(
    hashes: np.ndarray, thumbnails: np.ndarray, sizes: np.ndarray, candidates: np.ndarray
) -> list[tuple[int, int, float]]:
    """Return pairs of nearly equal images with the correlation of their pixels.

    Args:
      hashes: uint64 ``(N, 2)``.
      thumbnails: uint8 ``(N, H, W, 3)``.
      sizes: of the images ``(N, 2)``.
      candidates: indices of the images to compare, one of each group of exact copies.

    Raises:
      TooManyCandidates: the images resemble one another too much.
    """
    flat = thumbnails[candidates].reshape(len(candidates), -1)
    candidates = candidates[flat.std(axis=1) >= MIN_DEVIATION]
    hashes = np.ascontiguousarray(hashes[candidates].T)
    small = sizes[candidates].min(axis=1) < SMALL
    found: list[tuple[int, int, float]] = []
    compared = 0
    for start in range(0, len(candidates), _BLOCK):
        rows = slice(start, start + _BLOCK)
        for other in range(start, len(candidates), 16 * _BLOCK):
            columns = slice(other, other + 16 * _BLOCK)
            bits = sum(np.bitwise_count(h[rows, None] ^ h[None, columns]) for h in hashes)
            one, two = (
                part + offset
                for part, offset in zip(np.nonzero(bits <= MAX_BITS), (start, other), strict=True)
            )
            one, two = one[one < two], two[one < two]
            compared += len(one)
            if compared > _PAIRS_PER_IMAGE * len(candidates) + 1000:
                raise TooManyCandidates
            if not len(one):
                continue
            correlation = _correlation(thumbnails, candidates[one], candidates[two])
            least = np.where(small[one] | small[two], MIN_CORRELATION_SMALL, MIN_CORRELATION)
            for i in np.flatnonzero(correlation >= least):
                pair = int(candidates[one[i]]), int(candidates[two[i]]), float(correlation[i])
                found.append(pair)
    return found


def connected(count: int, links: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return a group number ``(count,)`` for each image; linked images share theirs."""
    one, two = np.array(links, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one), bool), (one, two)), (count, count))
    return connected_components(graph, directed=False)[1]


def groups_of(numbers: np.ndarray) -> list[list[int]]:
    """Return the groups of two or more images with the same number."""
    return _split(np.arange(len(numbers)), numbers)


def _split(members: np.ndarray, group: np.ndarray) -> list[list[int]]:
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order])) + 1
    parts = np.split(members[order], ends)
    return sorted(part.tolist() for part in parts if len(part) > 1)


def _correlation(thumbnails: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the correlation of the pixels of pairs of thumbnails, in parts to bound memory."""
    result = np.empty(len(one))
    for start in range(0, len(one), 4096):
        part = slice(start, start + 4096)
        first, second = (_standardized(thumbnails[index[part]]) for index in (one, two))
        result[part] = (first * second).sum(axis=1)
    return result


def _standardized(thumbnails: np.ndarray) -> np.ndarray:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _gray(image: np.ndarray) -> np.ndarray:
    return image.astype(np.int32) @ np.array([299, 587, 114])
