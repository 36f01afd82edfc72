"""Whether batch norm can be trained with the images that it sees at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.ops.norm import BatchNorm
from train.engine.step import StepConfig
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names


def check_batch_norm(
    config: ConfigDict, step_config: StepConfig, image_shape: tuple[int, int, int], images: int
) -> None:
    """Raise UsageError if a batch norm would have one value per channel in training.

    Its variance is 0 then, and its output does not depend on the image, which is another network
    than the one that is evaluated. So it is with one image and a map of one pixel, such as the
    mean over the image in DeepLabv3. PyTorch raises an error for it, too.

    Args:
      config: the configuration.
      step_config: that of the steps.
      image_shape: ``(H, W, C)`` of the training images before augmentation.
      images: number of images that batch norm sees at a time.
    """
    if images > 1:
        return
    shape = step_config.augment.output_shape(image_shape)
    names = single_value_norms(step_config.model, shape)
    if not names:
        return
    advice = ["a larger config.batch_size"]
    if config.grad_accum_steps > 1:
        advice.append("a smaller config.grad_accum_steps")
    if not config.sync_batch_norm and config.batch_size > config.grad_accum_steps:
        advice.append("config.sync_batch_norm=True")
    in_heads = all(name.startswith(("head/", "aux_head/")) for name in names)
    advice.append(f"config.model.{'head_norm' if in_heads else 'norm'}='group'")
    raise UsageError(
        f"batch norm would have one value per channel in training, whose variance is 0, in"
        f" {join_names(names, 3)}: it sees one image at a time (batch_size={config.batch_size},"
        f" grad_accum_steps={config.grad_accum_steps}). Use {', '.join(advice[:-1])} or"
        f" {advice[-1]}"
    )


def single_value_norms(model: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """Return the batch norms that have one value per channel if one image is trained.

    Args:
      model: the network; nothing is computed or compiled.
      image_shape: ``(H, W, C)``.
    """
    model, names = model.clone(axis_name=None), []

    def record(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        norm = context.module
        if isinstance(norm, (BatchNorm, nn.BatchNorm)) and context.method_name == "__call__":
            average = kwargs.get("use_running_average", norm.use_running_average)
            if not average and args[0].size == args[0].shape[-1]:
                names.append("/".join(norm.path))
        return call(*args, **kwargs)

    def forward(key: jax.Array, images: jax.Array) -> Any:
        variables = model.init(key, images)
        rngs = {"dropout": key}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(forward, jax.eval_shape(jax.random.key, 0), images)
    return names
