"""Grad-CAM: which part of an image speaks for a class (Selvaraju et al. 2017, arXiv:1610.02391)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flax_resnet.resnet import ResNet


def gradcam(
    model: ResNet, variables: Any, images: Any, classes: Any = None, *, stage: int | None = None
) -> jax.Array:
    """Maps float32 ``(N, H, W)`` in 0…1: high where the image speaks for the class.

    The channels of a stage's map are summed with the mean gradients of the class's logit with
    respect to them as weights; what is negative, and so speaks for other classes, becomes 0
    (section 3, equations 1 and 2). The map is scaled by its maximum, and enlarged bilinearly
    to the image. Where nothing speaks for the class it is 0 all over.

    Args:
      model: with a head.
      variables: its ``{"params", "batch_stats"}``.
      images: normalized float images ``(N, H, W, C)``.
      classes: one for all images, or ``(N,)``; by default those with the highest logits.
      stage: whose map, from 1; by default the last. Early ones are finer and tell less. Of a
        pre-activation net the last stage's is the activated map that is pooled, others' are
        the bare sums.

    Raises ValueError for a net without a head, and for a stage or class that it has not.
    """
    if not model.num_classes:
        raise ValueError("Grad-CAM is of a class's logit; a net with num_classes=0 has none")
    stages = len(model.stage_sizes)
    stage = stages if stage is None else stage
    if stage not in range(1, stages + 1):
        raise ValueError(f"stage must be 1 to {stages}, not {stage!r}")
    if np.ndim(images) != 4:
        raise ValueError(f"images must be (N, H, W, C), not of shape {np.shape(images)}")
    if classes is not None:
        classes = np.asarray(classes)
        if (
            not np.issubdtype(classes.dtype, np.integer)
            or not ((classes >= 0) & (classes < model.num_classes)).all()
        ):
            raise ValueError(f"classes must be 0 to {model.num_classes - 1}, not {classes}")
        classes = np.broadcast_to(classes, len(images)).astype(np.int32)
    # Sequences may be lists, which jit cannot tell apart.
    model = model.clone(stage_sizes=tuple(model.stage_sizes), frozen=tuple(model.frozen))
    return _maps(model, variables, images, classes, stage)


@partial(jax.jit, static_argnames=("model", "stage"))
def _maps(
    model: ResNet, variables: Any, images: jax.Array, classes: jax.Array | None, stage: int
) -> jax.Array:
    last = stage == len(model.stage_sizes)
    if last:
        maps = model.apply(variables, images, method="forward_features")
    else:
        maps = model.apply(variables, images, method="endpoints")[f"stage{stage}"]

    def logits_of(maps: jax.Array) -> jax.Array:
        if last:
            return model.apply(variables, maps, method="forward_head")
        return _logits_with(model, variables, images, stage, maps)

    logits, pull = jax.vjp(logits_of, maps)
    if classes is None:
        classes = logits.argmax(axis=1)
    # An image's logits follow from its own map alone, so one gradient serves all.
    (gradients,) = pull(jax.nn.one_hot(classes, model.num_classes, dtype=logits.dtype))
    weights = gradients.astype(jnp.float32).mean(axis=(1, 2), keepdims=True)
    heat = jax.nn.relu((weights * maps.astype(jnp.float32)).sum(axis=-1))
    highest = heat.max(axis=(1, 2), keepdims=True)
    heat = heat / jnp.where(highest > 0, highest, 1)
    return jax.image.resize(heat, (len(heat), *images.shape[1:3]), "linear")


def _logits_with(
    model: ResNet, variables: Any, images: jax.Array, stage: int, maps: jax.Array
) -> jax.Array:
    """The logits where the stage gives ``maps``, which is the way to differentiate by them."""
    block = f"stage{stage}_block{model.stage_sizes[stage - 1]}"

    def replace(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        result = call(*args, **kwargs)
        is_last = context.module.name == block and context.method_name == "__call__"
        return maps if is_last else result

    with nn.intercept_methods(replace):
        return model.apply(variables, images)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The uint8 image ``(H, W, 3)`` with a map ``(H, W)`` in 0…1 over it, from yellow to red."""
    heat = np.clip(heat, 0, 1)[..., None]
    colours = np.concatenate([np.full_like(heat, 255), 255 * (1 - heat), np.zeros_like(heat)], -1)
    share = 0.65 * heat
    return np.rint((1 - share) * image + share * colours).astype(np.uint8)
