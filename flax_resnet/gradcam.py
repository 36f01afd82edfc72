"""Grad-CAM: evidence for a class by image region (Selvaraju et al. 2017, arXiv:1610.02391)."""

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
    """Return heat maps, float32 ``(N, H, W)`` in 0…1, high in regions that support the class.

    The channels of a stage's map are summed, weighted by the mean gradient of the class's logit
    with respect to each; negative values, which support other classes, become 0 (section 3,
    equations 1 and 2). The map is divided by its maximum and resized bilinearly to the image. It
    is all zeros if nothing supports the class.

    Args:
      model: a network with a head.
      variables: its ``{"params", "batch_stats"}``.
      images: normalized float images ``(N, H, W, C)``.
      classes: one class for all images, or ``(N,)``; default: those with the highest logits.
      stage: number of the stage, from 1; default: the last. Maps of early stages have a higher
        resolution and are less class-specific. In a pre-activation network the last stage's map is
        taken after norm and ReLU; the other maps are the raw sums.

    Raises:
      ValueError: if the network has no head, or no such stage or class.
    """
    if not model.num_classes:
        raise ValueError("Grad-CAM needs class logits; a network with num_classes=0 has none")
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
    # Sequences may be lists, which are not hashable as jit requires.
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

    def compute_logits(maps: jax.Array) -> jax.Array:
        if last:
            return model.apply(variables, maps, method="forward_head")
        return _logits_from_stage(model, variables, images, stage, maps)

    logits, vjp = jax.vjp(compute_logits, maps)
    if classes is None:
        classes = logits.argmax(axis=1)
    # An image's logits depend only on its own map, so one gradient serves all images.
    (gradients,) = vjp(jax.nn.one_hot(classes, model.num_classes, dtype=logits.dtype))
    weights = gradients.astype(jnp.float32).mean(axis=(1, 2), keepdims=True)
    heat = jax.nn.relu((weights * maps.astype(jnp.float32)).sum(axis=-1))
    highest = heat.max(axis=(1, 2), keepdims=True)
    heat = heat / jnp.where(highest > 0, highest, 1)
    return jax.image.resize(heat, (len(heat), *images.shape[1:3]), "linear")


def _logits_from_stage(
    model: ResNet, variables: Any, images: jax.Array, stage: int, maps: jax.Array
) -> jax.Array:
    """Return the logits with the stage's output replaced by ``maps``, to differentiate by these."""
    block = f"stage{stage}_block{model.stage_sizes[stage - 1]}"

    def replace(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        result = call(*args, **kwargs)
        is_last = context.module.name == block and context.method_name == "__call__"
        return maps if is_last else result

    with nn.intercept_methods(replace):
        return model.apply(variables, images)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlay a uint8 image ``(H, W, 3)`` with a heat map ``(H, W)`` in 0…1, yellow to red."""
    colors, alpha = overlay_colors(heat)
    return np.rint((1 - alpha) * image + alpha * colors).astype(np.uint8)


def overlay_colors(heat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the colors ``(…, 3)`` in 0…255 and the opacity ``(…, 1)`` of heat ``(…)`` in 0…1."""
    heat = np.clip(heat, 0, 1)[..., None]
    colors = np.concatenate([np.full_like(heat, 255), 255 * (1 - heat), np.zeros_like(heat)], -1)
    return colors, 0.65 * heat
