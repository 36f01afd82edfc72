"""Registries of the parts that a configuration names; see docs/extend.md.

The modules of the project's own parts fill them by the same decorators as recipes do.
"""

from flax_resnet.registry import BLOCKS, MODELS, Registry
from train.data.registries import AUGMENTATIONS, SOURCES

OPTIMIZERS = Registry("optimizer", ("sgd", "adam", "adamw", "lars", "lamb"))
SCHEDULES = Registry("schedule", ("constant", "step", "cosine", "polynomial", "one_cycle"))
LOSSES = Registry("loss", ("cross_entropy", "binary_cross_entropy"))

register_optimizer = OPTIMIZERS.register
register_schedule = SCHEDULES.register
register_loss = LOSSES.register

# The registry of the parts that a key names, and what separates several of them, or a name from
# its argument.
NAMED_BY = {
    "model.name": (MODELS, ""),
    "model.block": (BLOCKS, ""),
    "optimizer.name": (OPTIMIZERS, ""),
    "schedule.name": (SCHEDULES, ""),
    "loss": (LOSSES, ""),
    "augment.policy": (AUGMENTATIONS, "+"),
    "dataset.name": (SOURCES, ":"),
}
