"""Segmentation features of TFDS data sets: which one has the masks, and what its values mean."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from train.data.masks import IGNORED, MaskValues, default_names
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names


class MaskMeaning(NamedTuple):
    """The classes of a mask feature.

    Attributes:
      class_names: names of the classes.
      values: the value of each class in a mask, and the values that are ignored.
    """

    class_names: tuple[str, ...]
    values: MaskValues


def _meaning(names: Mapping[int, str]) -> MaskMeaning:
    """Return the meaning of masks in which all values without a name are ignored."""
    ignored = tuple(value for value in range(IGNORED + 1) if value not in names)
    return MaskMeaning(tuple(names.values()), MaskValues(tuple(names), ignored))


_CITYSCAPES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"},
    **{19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"},
    **{24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
    **{32: "motorcycle", 33: "bicycle"},
}
# By name of the data set. The border of a pet is a class, as in the tutorial of TensorFlow; of
# Cityscapes the 19 classes of its benchmark.
_USUAL = ("segmentation_mask", "segmentation_label")
_KNOWN = {
    ("oxford_iiit_pet", "segmentation_mask"): _meaning({1: "pet", 2: "background", 3: "border"}),
    ("cityscapes", "segmentation_label"): _meaning(_CITYSCAPES),
}


def is_mask(feature: Any) -> bool:
    """Return whether a feature may have masks: images of one uint8 channel."""
    if isinstance(feature, tfds.features.LabeledImage):
        return True
    is_image = isinstance(feature, tfds.features.Image)
    return is_image and feature.shape[-1] == 1 and np.dtype(feature.np_dtype) == np.uint8


def find_mask(features: Mapping[str, Any], label_key: str) -> str | None:
    """Return the key of the masks, or None if the labels of a data set are classes.

    Masks are the feature that ``label_key`` names or, without it and without a class label, one of
    a usual name, or the only one that may have masks.
    """
    if label_key:
        return label_key if label_key in features and is_mask(features[label_key]) else None
    if any(isinstance(feature, tfds.features.ClassLabel) for feature in features.values()):
        return None
    masks = [key for key, feature in features.items() if is_mask(feature)]
    usual = [key for key in _USUAL if key in masks]
    return usual[0] if usual else masks[0] if len(masks) == 1 < len(features) else None


def find_image(features: Mapping[str, Any], label_key: str, name: str, chosen: str = "") -> str:
    """Return the key of the images that the masks ``label_key`` belong to.

    Args:
      features: all features of a data set.
      label_key: key of the masks.
      name: the data set, for the error.
      chosen: the key to return, if it is of an image.

    Raises:
      UsageError: there is none.
    """
    is_image = {k: isinstance(f, tfds.features.Image) for k, f in features.items()}
    images = [key for key in features if is_image[key] and key != label_key]
    if chosen:
        images = [key for key in images if key == chosen]
    if not images:
        feature = "Image feature" + f" {chosen!r}" * bool(chosen)
        raise UsageError(f"{name} has no {feature} for {label_key!r}; it has {', '.join(features)}")
    # Colors are preferred to other masks, such as of instances.
    return sorted(images, key=lambda key: (key != "image", is_mask(features[key])))[0]


def mask_meaning(name: str, key: str, feature: Any, dataset: ConfigDict | None) -> MaskMeaning:
    """Return the classes of the masks in a feature.

    Args:
      name: TFDS's name of the data set.
      key: key of the feature.
      feature: the feature.
      dataset: ``config.dataset``, whose ``mask_values`` replace the known ones.

    Raises:
      UsageError: the classes are not known.
    """
    names = tuple(getattr(feature, "names", None) or ())
    if dataset is not None and dataset.mask_values:
        values = MaskValues(tuple(dataset.mask_values), tuple(dataset.ignore_values))
        return MaskMeaning(names or default_names(len(values.values)), values)
    if (name, key) in _KNOWN:
        return _KNOWN[name, key]
    if names:
        return MaskMeaning(names, MaskValues())
    known = join_names([f"{key} of {name}" for name, key in _KNOWN])
    raise UsageError(
        f"the classes in {key!r} of {name} are not known (only those of {known}, and of features"
        " LabeledImage); set config.dataset.mask_values to the values of the classes, such as"
        " 0,1,2, and ignore_values to those that are no class"
    )
