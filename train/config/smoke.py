"""Smoke runs of recipes: two small steps, on any machine and without the recipe's data.

They show that a recipe works before it gets a day on eight GPUs; the model learns nothing in two
steps.
"""

import math
import os
from collections.abc import Callable, Set
from typing import Any

import jax

from flax_resnet.dense.on_backbone import find_backbone
from flax_resnet.images.pixels import RGB_MEAN, RGB_STD
from flax_resnet.own_layers import is_own
from flax_resnet.preprocessing import height_and_width, scale_size
from flax_resnet.registry import MODELS
from flax_resnet.runs import model_from_config
from flax_resnet.weights.naming.parts import split_part
from train.config.access import flatten, set_key
from train.config.keys import DATA_KEYS, KEYS
from train.config.registries import SEGMENTATION
from train.config.task_defaults import learns_several_labels
from train.data.sources.digits import TRAIN_IMAGES
from train.data.sources.drawn_shapes import COUNTS
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError

STEPS = 2
IMAGES = 16  # per micro-batch
SIZE = 32
WIDTH = 8
HEAD_CHANNELS = 32

EMBEDDED = {SEGMENTATION: ("drawn_shapes", COUNTS["train"])}  # data by task; others: digits

Put = Callable[[str, Any], None]


def shrink(config: ConfigDict, chosen: Set[str] = frozenset()) -> None:
    """Change ``config`` into a smoke run in place.

    Augmentation, loss, optimizer, moving average and freezing do not change; the schedule is
    scaled to the length of the run.

    Args:
      config: a complete configuration, already checked.
      chosen: keys that keep their values, for example ``"batch_size"``. Embedded data replace the
        recipe's unless it includes ``"dataset.name"``, or ``"dataset.data_dir"`` or
        ``"dataset.labels"`` for data that are not prepared by TFDS.

    Raises:
      UsageError: the model is invalid.
    """

    def put(name: str, value: Any) -> None:
        if name not in chosen:
            set_key(config, name, value)

    # Each micro-batch on each device needs an even number of images, since mixup pairs them.
    images = math.lcm(IMAGES, 2 * jax.device_count()) * config.grad_accum_steps
    put("batch_size", math.lcm(images, config.augment.repeated_aug))
    _shrink_time(config, put, chosen)

    dataset = config.dataset
    shorter = min(height_and_width(dataset.image_size))
    put("dataset.image_size", scale_size(dataset.image_size, min(shorter, SIZE), shorter))
    put("augment.crop_size", 0)
    factor = min(height_and_width(dataset.image_size)) / shorter  # it may have been kept
    put("dataset.train_sizes", tuple(max(1, round(s * factor)) for s in dataset.train_sizes))

    embedded, count = EMBEDDED.get(config.task, ("digits", TRAIN_IMAGES))
    in_folder = dataset.name.partition(":")[0] not in (embedded, "tfds")
    own_data = in_folder and {"dataset.data_dir", "dataset.labels"} & chosen
    own_data = own_data or learns_several_labels(config)  # digits have one class each
    if dataset.name == embedded or not ("dataset.name" in chosen or own_data):
        if dataset.name != embedded:
            # Do not prepare the digits in the folder of the recipe's data.
            dataset.update({key: KEYS[f"dataset.{key}"].default for key in DATA_KEYS})
            dataset.name = embedded
            if config.class_weights != "balanced":  # otherwise names of other classes
                put("class_weights", "")
        put("dataset.train_split", f"train[:{min(STEPS * config.batch_size, count)}]")
        put("dataset.eval_split", f"test[:{2 * IMAGES}]")
        put("model.num_classes", 0)
        if dataset.channels not in (1, 3):  # the digits are gray
            put("dataset.channels", 3)
            put("dataset.mean", RGB_MEAN)
            put("dataset.std", RGB_STD)
    _shrink_model(config, put)


def _shrink_time(config: ConfigDict, put: Put, chosen: Set[str]) -> None:
    """Two steps, which are one epoch here, with everything that happens during a real run."""
    steps, epochs, schedule = config.num_steps, config.num_epochs, config.schedule
    put("num_steps", 0 if "num_epochs" in chosen else STEPS)
    put("eval.every_epochs", 0.0)
    put("checkpoint.every_epochs", 0.0)
    put("log.every_steps", 1)
    put("log.profile_steps", ())
    if schedule.warmup_epochs or schedule.warmup_steps:
        put("schedule.warmup_epochs", 0.0)
        put("schedule.warmup_steps", 1)
        put("schedule.max_warmup_fraction", 0.5)
    if chosen & {"num_epochs", "num_steps"}:
        return  # values in epochs and steps keep their meaning
    if steps:
        milestones = (min(step * STEPS // steps, STEPS - 1) for step in schedule.milestone_steps)
        put("schedule.milestone_steps", tuple(milestones))
    elif epochs:
        for group, name in (("schedule", "milestone_epochs"), ("dataset", "train_size_epochs")):
            put(f"{group}.{name}", tuple(epoch / epochs for epoch in config[group][name]))


def _shrink_model(config: ConfigDict, put: Put) -> None:
    file, _ = split_part(os.path.expanduser(config.init_from))
    if config.init_from and os.path.exists(file):
        return  # the file holds the weights of the complete network
    put("init_from", "")
    try:
        model = model_from_config(flatten(config), num_classes=10)
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from None
    if MODELS.owner(config.model.name) is not None:
        return  # an own model may have no such fields
    backbone, has_dense_head = find_backbone(model)
    put("model.stage_sizes", (1,) * len(backbone.stage_sizes))
    if has_dense_head:
        put("model.head_channels", HEAD_CHANNELS)
        if model.head == "semantic_fpn":
            put("model.pyramid_channels", HEAD_CHANNELS)
    if is_own(backbone):
        return  # own layers may need this width
    # Groups must divide the channels inside a block; group norm has 32 groups.
    groups = backbone.groups // math.gcd(backbone.groups, backbone.width_multiplier)
    put("model.width", 32 if backbone.norm == "group" else math.lcm(WIDTH, groups))
