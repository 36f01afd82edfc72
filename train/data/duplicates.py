"""Images that are copies of one another, empty or unreadable."""

import hashlib
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

MAX_FILES = 200_000  # of a larger data set, a part is compared
MAX_SECONDS = 3.0  # by which the start of a run may be delayed
_SIZES_SHARE = 0.4  # of that time, for the sizes of the files
_CHUNK = 200  # files per task of a thread
_THREADS = 8  # they mostly wait for the disk or the network
_SAMPLE = 1 << 14  # bytes that are compared before whole files are
_UNREADABLE = -1


@dataclass(frozen=True)
class FileCheck:
    """The result of :func:`check_files` or :func:`check_images`; images are indices.

    Attributes:
      checked: number of images that were compared with all others.
      empty: images without content.
      unreadable: images that this process may not read.
      copies: groups of two or more images with equal content.
    """

    checked: int
    empty: list[int]
    unreadable: list[int]
    copies: list[list[int]]


def check_files(root: str, files: Sequence[str], max_seconds: float = MAX_SECONDS) -> FileCheck:
    """Compare the content of files.

    Only files of equal size are read: first a sample of each, then whole files whose samples are
    equal. When the time is over, the files compared so far are a random selection of all.

    Args:
      root: folder of the files.
      files: paths of regular files below ``root``.
      max_seconds: approximate time limit.
    """
    checked = 0

    def split(groups: list[list[int]], function: Callable[[str], Hashable]) -> list[list[int]]:
        """Split groups by a value of their files; groups of one are dropped."""
        nonlocal checked
        indices = [index for group in groups for index in group]
        value = timed.values(on_path(function), indices)
        checked -= len(indices) - len(value)
        return [
            part
            for group in groups
            for part in _groups({index: value[index] for index in group if index in value})
        ]

    def on_path(function: Callable[[str], Hashable]) -> Callable[[int], Hashable]:
        return lambda index: function(os.path.join(root, files[index]))

    with ThreadPoolExecutor(_THREADS) as pool:
        timed = _Timed(pool, max_seconds)
        sizes = timed.values(on_path(_readable_size), _selection(len(files)), _SIZES_SHARE)
        checked += len(sizes)
        same_size = _groups({index: size for index, size in sizes.items() if size > 0})
        small, large = [], []
        for group in split(same_size, _digest_of_sample):
            (small if sizes[group[0]] <= _SAMPLE else large).append(group)
        copies = small + split(large, _digest)
    return FileCheck(
        checked=checked,
        empty=sorted(index for index, size in sizes.items() if size == 0),
        unreadable=sorted(index for index, size in sizes.items() if size == _UNREADABLE),
        copies=sorted(map(sorted, copies)),
    )


def check_images(
    image: Callable[[int], bytes | np.ndarray], count: int, max_seconds: float = MAX_SECONDS
) -> FileCheck:
    """Compare images that are no files of their own, as :func:`check_files` does.

    Args:
      image: returns an image, encoded or as an array.
      count: number of images.
      max_seconds: approximate time limit.
    """

    def digest(index: int) -> Hashable:
        try:
            content = image(index)
        except (OSError, ValueError):  # ImageDecodeError is a ValueError
            return _UNREADABLE
        return content_digest(content) if isinstance(content, np.ndarray) or content else 0

    with ThreadPoolExecutor(_THREADS) as pool:
        digests = _Timed(pool, max_seconds).values(digest, _selection(count))
    contents = {index: value for index, value in digests.items() if value not in (0, _UNREADABLE)}
    return FileCheck(
        checked=len(digests),
        empty=sorted(index for index, value in digests.items() if value == 0),
        unreadable=sorted(index for index, value in digests.items() if value == _UNREADABLE),
        copies=sorted(map(sorted, _groups(contents))),
    )


def content_digest(image: bytes | np.ndarray) -> bytes:
    """Return a digest of 16 bytes of an encoded image, or of an array and its shape."""
    shape = repr(image.shape).encode() if isinstance(image, np.ndarray) else b""
    return hashlib.blake2b(image, digest_size=16, key=shape[:64]).digest()


def _selection(count: int) -> list[int]:
    """Return all or a random selection of ``count`` images, in random order."""
    return np.random.default_rng(0).permutation(count)[:MAX_FILES].tolist()


class _Timed:
    """Computes values of images in threads until the time is over."""

    def __init__(self, pool: ThreadPoolExecutor, max_seconds: float):
        self._pool, self._max_seconds = pool, max_seconds
        self._start = time.monotonic()

    def values(
        self, function: Callable[[int], Hashable], indices: Sequence[int], share: float = 1.0
    ) -> dict[int, Hashable]:
        """Return the values of the images that are read before a share of the time is over."""

        def work(first: int) -> list[tuple[int, Hashable]]:
            results = []
            for index in indices[first : first + _CHUNK]:
                if time.monotonic() - self._start > share * self._max_seconds:
                    break
                results.append((index, function(index)))
            return results

        parts = self._pool.map(work, range(0, len(indices), _CHUNK))
        return {index: value for part in parts for index, value in part}


def _groups(keys: dict[int, Hashable]) -> list[list[int]]:
    """Return the groups of two or more indices with the same key."""
    groups = defaultdict(list)
    for index, key in keys.items():
        groups[key].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _readable_size(path: str) -> int:
    """Return the size of a file in bytes, or ``_UNREADABLE``."""
    try:
        status = os.stat(path)
    except OSError:
        return _UNREADABLE
    effective = os.access in os.supports_effective_ids
    readable = status.st_mode & stat.S_IROTH or os.access(path, os.R_OK, effective_ids=effective)
    return status.st_size if readable else _UNREADABLE


def _digest_of_sample(path: str) -> Hashable:
    """Return a digest of the center of a file, or of all of it if it is small."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # open() takes twice as long
        try:
            # The first bytes of a camera's images are often equal.
            offset = max(0, (os.fstat(file).st_size - _SAMPLE) // 2)
            return hashlib.blake2b(os.pread(file, _SAMPLE, offset), digest_size=16).digest()
        finally:
            os.close(file)
    except OSError:
        return path  # equal to no other


def _digest(path: str) -> Hashable:
    """Return a digest of a file."""
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return path
