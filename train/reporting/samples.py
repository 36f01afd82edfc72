"""Training images for the report."""

from collections.abc import Sequence

import jax
import numpy as np

from flax_resnet.preprocessing import to_viewable
from flax_resnet.text import truncate
from train.data.augment.mixup import Targets
from train.data.augment.pipeline import example_keys
from train.engine.experiment import Experiment
from train.runtime.formatting import MAX_CAPTION, format_percent


def first_images(experiment: Experiment) -> tuple[np.ndarray, list[str]]:
    """Return up to 64 augmented images of the first batch, with captions."""
    batch = experiment.train_loader.samples(experiment.sampler, 64)
    even = len(batch["label"]) // 2 * 2  # since images are mixed in pairs
    images, labels = (batch[name][: even or None] for name in ("image", "label"))
    step_config = experiment.step_config
    keys = example_keys(step_config.seed, 0, np.arange(len(labels)))
    augment = jax.jit(step_config.augment.batch)
    augmented, targets = jax.device_get(augment(images, labels, keys))
    return to_viewable(augmented), captions(targets, experiment.train_loader.source.class_names)


def captions(targets: Targets, class_names: Sequence[str]) -> list[str]:
    """Return the class of each image; for mixed images both classes with their weights."""
    names = [truncate(name, MAX_CAPTION) for name in class_names]
    if targets.other is None:
        return [names[label] for label in targets.label]
    result = []
    for label, other, weight in zip(*targets, strict=True):
        if weight >= 0.995 or label == other:
            result.append(names[label])
        else:
            parts = sorted([(weight, label), (1 - weight, other)], reverse=True)
            result.append("\n".join(f"{names[i]} {format_percent(part, 0)}" for part, i in parts))
    return result
