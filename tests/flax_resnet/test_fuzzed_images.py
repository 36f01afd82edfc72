"""The short form of benchmarks/studies/fuzz_images.py, in this process."""

import time

import numpy as np
import pytest

from benchmarks.studies.fuzz_images import FORMATS, SECONDS, mutate, seeds
from flax_resnet.decoding import ImageDecodeError, decode_rgb


@pytest.fixture(scope="module")
def files():
    return {kind: seeds(kind) for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_images_decode_or_raise_within_bounds(kind, files):
    others = [variants[0] for variants in files.values()]
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        encoded = files[kind][rng.integers(len(files[kind]))]
        broken, start = mutate(encoded, others, rng), time.process_time()
        try:
            pixels = decode_rgb(broken, lambda *_: None)
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        except ImageDecodeError as error:
            assert "\n" not in str(error)
            refused += 1
        assert time.process_time() - start < SECONDS
    assert 0 < refused < 60
