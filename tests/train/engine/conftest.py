"""Fixtures for the tests of the engine."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (16, 12, 12, 3)).astype(np.uint8),
        "label": rng.integers(0, 7, 16).astype(np.int32),
    }
