"""Data that fit in memory: all images in one array on the device, gathered by the step."""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import tqdm

from flax_resnet.preprocessing import Preprocessing
from train.data.framing import Framing
from train.data.reader import CorruptRecord, Reader
from train.runtime.host import decoding_threads

CHUNK = 256  # records per task: with one each, the overhead exceeds decoding a small image
# Bytes of an image below which threads wait for the interpreter more than they decode
# (benchmarks/studies/startup.md).
_SMALL = 40 * 40 * 3


def load(
    reader: Reader,
    framing: Framing,
    preprocessing: Preprocessing,
    threads: int = 0,
    weights: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], list[CorruptRecord]]:
    """Decode every record, with a progress bar if it takes more than a second.

    Args:
      reader: decodes a record, or the next one in place of a corrupt one.
      framing: makes examples of records.
      preprocessing: with the size of the examples.
      threads: decoding threads; 0: one for small images, otherwise by the number of cores.
      weights: weights of the records ``(N,)``, if they are to be cached.

    Returns:
      ``image`` ``(N, H, W, C)``, ``label``, the source's ``targets`` of all N records, with
      ``weights`` also ``weight`` float32 ``(N,)``, and the corrupt records.
    """
    count = len(reader.source)
    images = np.empty((count, *preprocessing.shape), preprocessing.pixels.dtype)
    labels = framing.empty_labels(count, preprocessing)
    sources = np.empty(count, np.int32)  # the records whose images these are

    def decode(start: int) -> list[CorruptRecord]:
        corrupt = []
        for index in range(start, min(start + CHUNK, count)):
            image, label, replaced = reader.read(index)
            images[index], labels[index] = framing(image, label, preprocessing)
            sources[index] = (index + len(replaced)) % count
            corrupt += replaced
        return corrupt

    bar = tqdm.tqdm(
        desc=f"decoding {reader.source.split}",
        total=count,
        unit=" images",
        delay=1,
        leave=False,
        disable=None,
    )
    corrupt: list[CorruptRecord] = []
    threads = threads or _choose_threads(reader, preprocessing)
    with bar, ThreadPoolExecutor(threads) as pool:
        try:
            for replaced in pool.map(decode, range(0, count, CHUNK)):
                corrupt += replaced
                bar.update(min(CHUNK, count - bar.n))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    cached = {"image": images, "label": reader.source.targets(labels)}
    if weights is not None:
        cached["weight"] = weights[sources]
    return cached, corrupt


def _choose_threads(reader: Reader, preprocessing: Preprocessing) -> int:
    """Return the number of decoding threads, by the size of a few images and of the examples."""
    count = len(reader.source)
    sizes = [reader.read(index)[0].nbytes for index in {0, count // 2, count - 1}]
    return 1 if max(*sizes, preprocessing.nbytes) < _SMALL else decoding_threads()


def gather(cached: dict[str, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Replace the ``record`` numbers of a batch by what is ``cached`` of them."""
    batch = dict(batch)
    record = batch.pop("record")
    return batch | {name: array[record] for name, array in cached.items()}
