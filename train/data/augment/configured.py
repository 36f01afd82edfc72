"""The augmentation that the configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from flax_resnet.images.pixels import RGB, PixelFormat
from flax_resnet.preprocessing import height_and_width
from train.data.augment.auto_augment import Policy, check_operation, make_policies
from train.data.augment.joint import JointAugment
from train.data.augment.mixup import Mixup
from train.data.augment.pipeline import Augment
from train.data.preprocessing import make_preprocessing
from train.runtime.errors import UsageError

if TYPE_CHECKING:  # the steps need no ml_collections
    from train.runtime.config_dict import ConfigDict


def make_augment(config: ConfigDict) -> Augment:
    """Build the augmentation of ``config.augment``; raise UsageError for invalid values."""
    keys = config.augment
    mix = Mixup(keys.mixup, keys.cutmix, keys.mixup_prob, keys.mixup_switch_prob)
    _check_hue(keys)
    preprocessing = make_preprocessing(config.dataset)
    size = min((preprocessing.shorter_side, *config.dataset.train_sizes))
    for name, pixels in (("cutout", keys.cutout), ("pad_crop", keys.pad_crop)):
        if pixels >= size:
            raise UsageError(
                f"config.augment.{name}={pixels} leaves nothing of images of {size} pixels"
            )
    policies, form = make_policies(keys), preprocessing.pixels
    if form != RGB:
        if any(isinstance(policy, Policy) for policy in policies):
            raise _needs_rgb("policy", keys, form)
        if any(keys.color_jitter):
            raise _needs_rgb("color_jitter", keys, form)
    image = jax.ShapeDtypeStruct(preprocessing.at(size).shape, form.dtype)
    for policy in policies:
        try:
            check_operation(policy, image)
        except UsageError as error:
            raise UsageError(
                f"config.augment.policy={keys.policy!r} cannot be used: {error}"
            ) from error
    return Augment(
        pad_crop=keys.pad_crop,
        hflip=keys.hflip,
        vflip=keys.vflip,
        policies=policies,
        color_jitter=tuple(keys.color_jitter),
        cutout=keys.cutout,
        random_erasing=keys.random_erasing,
        random_erasing_scale=tuple(keys.random_erasing_scale),
        random_erasing_ratio=tuple(keys.random_erasing_ratio),
        mix=mix,
        fill=preprocessing.fill,
    )


# Augmentations without a meaning for images with masks, with the values that turn them off.
_NOT_JOINT = {
    "policy": "",
    "pad_crop": 0,
    "cutout": 0,
    "random_erasing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}


def make_joint_augment(config: ConfigDict) -> JointAugment:
    """Build the augmentation of images with masks; raise UsageError for invalid values."""
    keys = config.augment
    for name, off in _NOT_JOINT.items():
        if keys[name] != off:
            raise UsageError(
                f"config.augment.{name}={keys[name]!r} is not for images with masks; use"
                f" scale_range, crop_size, hflip, vflip and color_jitter, and set {name}={off!r}"
            )
    _check_hue(keys)
    preprocessing = make_preprocessing(config.dataset)
    if any(keys.color_jitter) and preprocessing.pixels != RGB:
        raise _needs_rgb("color_jitter", keys, preprocessing.pixels)
    crop_size = height_and_width(keys.crop_size or config.dataset.image_size)
    if min(crop_size) < 1:
        raise UsageError(f"config.augment.crop_size={keys.crop_size} has a side of 0 pixels")
    return JointAugment(
        scale_range=tuple(keys.scale_range),
        crop_size=crop_size,
        hflip=keys.hflip,
        vflip=keys.vflip,
        color_jitter=tuple(keys.color_jitter),
        fill=preprocessing.fill,
    )


def _check_hue(keys: ConfigDict) -> None:
    if keys.color_jitter[3] > 0.5:
        raise UsageError(
            f"config.augment.color_jitter: the hue, {keys.color_jitter[3]}, must be at most 0.5,"
            " which allows any hue"
        )


def _needs_rgb(name: str, keys: ConfigDict, form: PixelFormat) -> UsageError:
    return UsageError(
        f"config.augment.{name}={keys[name]!r} changes colors, which needs images of {RGB}; these"
        f" have {form}"
    )
