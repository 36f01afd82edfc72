"""Data in memory: how many threads decode them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.train.pictures import encode, photograph
from train.config.loading import default_config
from train.data import in_memory
from train.data.loader import DataLoader
from train.data.source import DataSource
from train.runtime.host import core_count


@pytest.fixture
def threads(monkeypatch):
    """Return a function that loads pictures, and returns the number of threads that it used."""

    def load(height, width, image_size, **loader):
        used = []

        def pool(count):
            used.append(count)
            return ThreadPoolExecutor(count)

        monkeypatch.setattr(in_memory, "ThreadPoolExecutor", pool)
        config = default_config()
        config.loader.update(cache_on_device="always", **loader)
        config.dataset.image_size = image_size
        picture = encode(photograph(0, height, width), "PNG")
        records = [{"image": picture, "label": k % 2} for k in range(4)]
        source = DataSource("own", "train", ("a", "b"), records)
        cached = DataLoader(config, "train", True, source=source).load().cached
        assert cached["image"].shape == (4, image_size, image_size, 3)
        np.testing.assert_array_equal(cached["label"], [0, 1, 0, 1])
        return used

    return load


def test_small_images_are_decoded_by_one_thread(threads):
    assert threads(30, 30, 32) == [1]


def test_large_files_are_decoded_by_several_threads_though_the_crop_is_small(threads):
    assert threads(300, 400, 32) == [core_count() + 1]
    assert threads(30, 30, 96) == [core_count() + 1]


def test_a_chosen_number_of_threads_is_used_whatever_the_size(threads):
    assert threads(30, 30, 32, threads=3) == [3]
    assert threads(300, 400, 32, threads=1) == [1]
