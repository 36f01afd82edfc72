"""Tiles of pictures that are larger than the input of a network."""

import numpy as np
import pytest

from flax_resnet.dense.tiling import cut, tiles


@pytest.mark.parametrize(
    ("size", "tile"),
    [
        *(((1, 1), (1, 1)), ((3, 7), (1, 2)), ((30, 64), (32, 64)), ((65, 300), (64, 32))),
        *(((400, 257), (64, 256)), ((4000, 6000), (512, 1024)), ((1025, 513), (512, 512))),
    ],
)
def test_each_pixel_is_taken_once_with_context_on_all_sides(size, tile):
    taken = np.zeros(size, int)
    margins = [side // 8 for side in tile]
    for one in tiles(size, tile):
        taken[one.rows, one.columns] += 1
        places = zip((one.rows, one.columns), (one.top, one.left), size, tile, margins, strict=True)
        for part, start, length, side, margin in places:
            assert start <= part.start < part.stop <= min(length, start + side)
            assert part.start == 0 or part.start - start >= margin
            assert part.stop == length or start + side - part.stop >= margin
            assert start % min(32, 2 ** int(np.log2(max(1, margin)))) == 0
            assert start + side < length + max(32, side)
    assert (taken == 1).all()


def test_tiles_hold_the_picture_and_beyond_it_the_fill():
    image = np.random.default_rng(0).integers(1, 255, (70, 45, 3), np.uint8)
    collected = np.zeros_like(image)
    for one in tiles((70, 45), (32, 32)):
        tile = cut(image, one, (32, 32), (0, 0, 0))
        assert tile.shape == (32, 32, 3)
        assert (tile[70 - one.top :] == 0).all() if one.top + 32 > 70 else tile.all(-1).any()
        collected[one.rows, one.columns] = tile[one.center]
    np.testing.assert_array_equal(collected, image)
