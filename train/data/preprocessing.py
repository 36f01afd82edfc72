"""The preprocessing that a configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flax_resnet.preprocessing import Preprocessing, height_and_width, scale_size
from train.data.channels import mean_and_std

if TYPE_CHECKING:  # the steps need no ml_collections
    from train.runtime.config_dict import ConfigDict


def make_preprocessing(dataset: ConfigDict) -> Preprocessing:
    """Return the preprocessing of ``config.dataset``."""
    height, width = map(int, height_and_width(dataset.image_size))
    size = height if height == width else (height, width)
    mean, std = mean_and_std(dataset)
    return Preprocessing(
        resize=scale_size(size, 1, dataset.crop_pct),
        image_size=size,
        interpolation=str(dataset.interpolation),
        mean=mean,
        std=std,
        bits=dataset.bits,
    )
