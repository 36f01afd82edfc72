"""Training images for the report."""

from collections.abc import Sequence

import jax
import numpy as np

from flax_resnet.preprocessing import to_viewable
from flax_resnet.text import truncate
from train.data.augment.mixup import Targets
from train.data.augment.pipeline import example_keys
from train.engine.experiment import Experiment
from train.reporting.plots import Pictures
from train.runtime.formatting import MAX_CAPTION, format_percent, run_name
from train.tasks.base import BaseTask


def first_images(experiment: Experiment) -> Pictures:
    """Return up to 64 augmented images of the first batch."""
    loader = experiment.train_loader
    records, batch = loader.samples(experiment.sampler, 64)
    even = len(batch["label"]) // 2 * 2  # since images are mixed in pairs
    images, labels = (batch[name][: even or None] for name in ("image", "label"))
    step_config = experiment.step_config
    keys = example_keys(step_config.seed, 0, np.arange(len(labels)))
    augment = jax.jit(step_config.augment.batch)
    augmented, targets = jax.device_get(augment(images, labels, keys))
    source, shown = loader.source, len(labels)
    names = [source.record_name(int(record)) for record in records[:shown]]
    title = (
        f"{run_name(experiment.workdir)} · training images as the network sees them, augmented"
        f" · {shown:,} of {len(source):,}"
    )
    texts = captions(targets, source.class_names, step_config.task)
    return Pictures(to_viewable(augmented), texts, names, title)


def captions(targets: Targets, class_names: Sequence[str], task: BaseTask) -> list[str]:
    """Return the class or classes of each image; of mixed images those of both with weights."""

    def text(label: np.ndarray) -> str:
        chosen = task.classes_in(label)
        return truncate(", ".join(class_names[k] for k in chosen) or "no class", MAX_CAPTION)

    if targets.other is None:
        return [text(label) for label in targets.label]
    result = []
    for label, other, weight in zip(*targets, strict=True):
        own = text(label)
        if weight >= 0.995 or np.array_equal(label, other):
            result.append(own)
        else:
            parts = sorted([(weight, own), (1 - weight, text(other))], reverse=True)
            result.append("\n".join(f"{name} {format_percent(part, 0)}" for part, name in parts))
    return result
