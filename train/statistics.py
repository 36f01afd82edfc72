"""Image statistics: python -m train.statistics --config RECIPE [--config.KEY=VALUE …]."""

import sys

import numpy as np

from train.config import loading
from train.runtime.cli import Parser, add_config_flag, run_command, split_overrides
from train.runtime.errors import print_line, warn


def main() -> int:
    """Run the command and return its exit status."""
    parser = Parser(
        "train.statistics",
        description="Compute the mean and standard deviation of a configuration's training images"
        " per channel, and print them as lines for a recipe.",
    )
    add_config_flag(parser)
    arguments, overrides = split_overrides(sys.argv[1:])
    flags = parser.parse_args(arguments)
    config = loading.load_config(flags.config, overrides)

    from train.data.corrupt_records import CorruptRecords
    from train.data.datasets import paths
    from train.data.loader import DataLoader

    config.dataset.update(paths(config.dataset))
    config.loader.cache_on_device = "never"
    loader = DataLoader(config, config.dataset.train_split, training=False)
    loader.load(CorruptRecords(warn=warn))
    count, mean, std = channel_statistics(loader)
    print_line(f"# {count:,} images of {loader.source.name} {loader.source.split}")
    end = "," * (len(mean) == 1)  # of a tuple of one
    for name, values in (("mean", mean), ("std", std)):
        print(f"config.dataset.{name} = ({', '.join(f'{value:.4f}' for value in values)}{end})")
    return 0


def channel_statistics(loader) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the number of valid images, and mean and standard deviation of each channel in 0…1.

    They are taken over all pixels of the center crops or, with masks, of the pictures.
    """
    form = loader.preprocessing.pixels
    total, squares = np.zeros(form.channels), np.zeros(form.channels)
    pixels, count = 0, 0
    for batch in loader.eval_batches(64):
        count += int(batch["valid"].sum())
        images = loader.picture_pixels(batch)
        # Sums of integers are exact for any number of images.
        total += images.sum(axis=0, dtype=np.int64)
        squares += np.square(images, dtype=np.int64).sum(axis=0)
        pixels += len(images)
    mean = total / pixels
    std = np.sqrt(squares / pixels - mean**2)
    return count, mean / form.max_value, std / form.max_value


if __name__ == "__main__":
    run_command(main)
