"""Registries of data sources and augmentations; ``train/config/registries.py`` has the others."""

from flax_resnet.registry import Registry

SOURCES = Registry(
    "data source",
    (
        *("digits", "folder", "table", "tfds", "arrays", "hf", "webdataset", "given"),
        *("segmentation_folder", "drawn_shapes"),
    ),
)
AUGMENTATIONS = Registry("augmentation", ("trivial", "rand"))

register_source = SOURCES.register
register_augmentation = AUGMENTATIONS.register
