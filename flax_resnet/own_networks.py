"""Check a network with own parts by tracing it, so that an error names the part."""

import dataclasses
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.dense.on_backbone import find_backbone
from flax_resnet.dense.segmentation import SegmentationModel
from flax_resnet.own_layers import PartError, check_signature, is_module_class, is_own, label
from flax_resnet.registry import MODELS
from flax_resnet.resnet import ResNet
from flax_resnet.text import error_reason

FIELDS = ("num_classes", "dtype", "frozen", "axis_name")  # that a run sets or reads
_EXAMPLES = ("a ResNet such as 'resnet50'", "a network such as 'deeplabv3_resnet50'")
MAPS = ("stage_sizes", "endpoints", "forward_features", "forward_head")  # of Grad-CAM


def check_network(
    model: nn.Module,
    name: str,
    image_shape: Sequence[int],
    outputs: int,
    per_pixel: bool = False,
) -> None:
    """Check that a network can be trained, unless all of its parts are the project's.

    Args:
      model: the network.
      name: of the registered model.
      image_shape: ``(H, W, C)``.
      outputs: logits that it must have.
      per_pixel: whether it must have them for every pixel, instead of for the image.

    Raises:
      PartError: it lacks fields, has other outputs, or one of its parts fails.
    """
    backbone, has_dense_head = find_backbone(model)
    if isinstance(backbone, ResNet) and bool(has_dense_head) != per_pixel:
        needed, other = ("pixel", "image") if per_pixel else ("image", "pixel")
        raise PartError(
            f"the model {name!r} returns logits per {other}, and the task needs them per {needed}:"
            f" use {_EXAMPLES[per_pixel]}, or another task"
        )
    ours = type(model) in (ResNet, SegmentationModel) and MODELS.owner(name) is None
    if ours and not is_own(backbone) and isinstance(model.norm, str):
        return
    fields = {field.name for field in dataclasses.fields(model)}
    if lacking := [field for field in FIELDS if field not in fields]:
        raise PartError(
            f"the model {name!r}, {label(type(model))}, lacks the fields {', '.join(lacking)};"
            f" a run needs {', '.join(FIELDS)}"
        )
    check_signature(f"the model {name!r}", type(model), "images")
    pixels = tuple(image_shape[:2]) if per_pixel else ()
    for train in (False, True):
        logits = _trace(model.clone(axis_name=None), image_shape, train)
        if per_pixel and isinstance(logits, tuple):  # with those of an auxiliary head
            logits = logits[0]
        shape = getattr(logits, "shape", None)
        if shape is None or shape[:-1] != (2, *pixels):
            result = logits if shape is None else f"an array of shape {shape}"
            expected = "N, H, W" if per_pixel else "N"
            raise PartError(
                f"the model {name!r} must return logits ({expected}, {outputs}), and for two images"
                f" returns {result}"
            )
        if {shape[-1], model.num_classes} != {outputs}:
            raise PartError(
                f"the model {name!r} has {shape[-1]} outputs and num_classes={model.num_classes},"
                f" and the run needs {outputs}: its function must pass on num_classes, the number"
                " of classes of the data or config.model.num_classes"
            )


def has_maps(model: nn.Module) -> bool:
    """Return whether a network has the methods that Grad-CAM uses."""
    return all(hasattr(model, name) for name in MAPS)


def _trace(model: nn.Module, image_shape: Sequence[int], train: bool) -> Any:
    """Return the abstract output for two images."""
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    norm = getattr(getattr(model, "norm", None), "func", getattr(model, "norm", None))

    def forward(key: jax.Array, images: jax.Array) -> jax.Array:
        variables = model.init(key, images)
        if not train:
            return model.apply(variables, images)
        rngs = {"dropout": key}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    def call_part(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module, is_call = context.module, context.method_name == "__call__"
        try:
            y = call(*args, **kwargs)
        except PartError:
            raise
        except Exception as error:
            raise PartError(f"{_describe(module)} fails: {_reason(error, module, args)}") from error
        if is_call and is_module_class(norm) and isinstance(module, norm):
            shape = getattr(y, "shape", None)
            if shape != args[0].shape:
                raise PartError(
                    f"norm {_describe(module)} returned {shape or y} for a map of shape"
                    f" {args[0].shape}; it must keep the shape"
                )
        return y

    with nn.intercept_methods(call_part):
        return jax.eval_shape(forward, jax.random.key(0), images)


def _describe(module: nn.Module) -> str:
    """Return the class of a module, its name in the network, and the block that it is in."""
    blocks, parent = [], module.parent
    while isinstance(parent, nn.Module) and parent.path:
        blocks.append(label(type(parent)))
        parent = parent.parent
    inside = f", in {blocks[-1]}" if blocks else ""
    return f"{label(type(module))} ({'/'.join(module.path) or 'the network'}{inside})"


def _reason(error: Exception, module: nn.Module, args: tuple) -> str:
    """Return what is wrong, and the line of the user's code."""
    groups, x = getattr(module, "feature_group_count", 1), next(iter(args), None)
    if isinstance(error, AssertionError) and hasattr(x, "shape") and x.shape[-1] % groups:
        return f"groups={groups} must divide its {x.shape[-1]} input channels"
    ours = str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<")) and "site-packages" not in frame.filename
    ]
    line = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error_reason(error)}{line}"
