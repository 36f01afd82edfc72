"""Indexes of data files in the user's cache directory, which may be deleted at any time.

There is one file per data file: a line with the state of the data file, a line with the checksum
of the index, and the index.
"""

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from flax_resnet.files import write_atomically
from train.runtime.files import user_cache_dir

_THREADS = 16  # they mostly wait for the disk


def index_in_parallel(
    index: Callable[[Any], Any], files: Iterable[Any], description: str
) -> list[Any]:
    """Return ``index(file)`` of many files, with a progress bar if it takes three seconds."""
    with ThreadPoolExecutor(_THREADS) as pool:
        results = [pool.submit(index, file) for file in files]
        try:
            bar = tqdm(results, description, unit=" files", delay=3, disable=None, leave=False)
            return [result.result() for result in bar]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def load_index(kind: str, path: str, key: tuple[int, ...]) -> bytes | None:
    """Return the index of a data file; None if there is none, or one of another state.

    Args:
      kind: folder in the cache.
      path: the data file.
      key: its state and the version of the index; another key is another index.
    """
    try:
        with open(_cache_path(kind, path), "rb") as file:
            header = file.readline() + file.readline()
            content = file.read()
    except OSError:
        return None
    # If the header differs, the data file has changed or the cache is corrupt.
    return content if header == _header(key, content) else None


def save_index(kind: str, path: str, key: tuple[int, ...], content: bytes) -> None:
    """Save an index for :func:`load_index`, if the cache can be written."""
    target = _cache_path(kind, path)
    with contextlib.suppress(OSError):  # a full disk or no home directory: scan again next time
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write_atomically(target, _header(key, content) + content)


def _cache_path(kind: str, path: str) -> str:
    name = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:32]
    return user_cache_dir(kind, name)


def _header(key: tuple[int, ...], content: bytes) -> bytes:
    return f"{' '.join(map(str, key))}\n{zlib.crc32(content)}\n".encode()
