"""The augmentation that the configuration describes."""

import jax

from flax_resnet.images.pixels import RGB
from train.data.augment.auto_augment import Policy, check_operation, make_policies
from train.data.augment.mixup import Mixup
from train.data.augment.pipeline import Augment
from train.data.preprocessing import make_preprocessing
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError


def make_augment(config: ConfigDict) -> Augment:
    """Build the augmentation of ``config.augment``; raise UsageError for invalid values."""
    keys = config.augment
    mix = Mixup(keys.mixup, keys.cutmix, keys.mixup_prob, keys.mixup_switch_prob)
    if keys.color_jitter[3] > 0.5:
        raise UsageError(
            f"config.augment.color_jitter: the hue, {keys.color_jitter[3]}, must be at most 0.5,"
            " which allows any hue"
        )
    preprocessing = make_preprocessing(config.dataset)
    size = min((preprocessing.shorter_side, *config.dataset.train_sizes))
    for name, pixels in (("cutout", keys.cutout), ("pad_crop", keys.pad_crop)):
        if pixels >= size:
            raise UsageError(
                f"config.augment.{name}={pixels} leaves nothing of images of {size} pixels"
            )
    policies, form = make_policies(keys), preprocessing.pixels
    if form != RGB:
        for name, changes_colors in (
            ("policy", any(isinstance(policy, Policy) for policy in policies)),
            ("color_jitter", any(keys.color_jitter)),
        ):
            if changes_colors:
                raise UsageError(
                    f"config.augment.{name}={keys[name]!r} changes colors, which needs images of"
                    f" {RGB}; these have {form}"
                )
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
        fill=tuple(
            min(form.max_value, max(0, round(form.max_value * mean))) for mean in preprocessing.mean
        ),
    )
