"""Own blocks, norms, convolutions and activations as fields of a network."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet import layers, norms
from flax_resnet.blocks import Block, describe_block
from flax_resnet.layers import Layer, PartError
from flax_resnet.registry import NORMS, Registry


def resolve(registry: Registry, part: Any) -> Any:
    """Return the project's parts by their names, and own ones themselves.

    So a later registration of the same name does not change a network, and a network is the same
    whether it was given the name or the part.

    Args:
      registry: the parts of this kind.
      part: a name, class or function; anything else is returned unchanged.
    """
    part = next((ours for theirs, ours in layers.SAME_FUNCTIONS if part is theirs), part)
    if isinstance(part, str):
        return part if registry.owner(part) is None else registry[part]
    names = (name for name in registry if registry.owner(name) is None and registry[name] is part)
    return next(names, part)


def label(part: Any) -> str:
    """Return the name of a part for messages and metadata."""
    if isinstance(part, partial):
        return label(part.func)
    return part if isinstance(part, str) else getattr(part, "__name__", type(part).__name__)


def is_own(model: Any) -> bool:
    """Return whether a network has parts that are not the project's."""
    parts = (model.block, model.norm, model.activation)
    return model.conv is not None or not all(isinstance(part, str) for part in parts)


def check_layers(norm: Any, conv: Any, activation: Any) -> None:
    """Raise ValueError if a layer of a network is not a name, class or function."""
    for field, layer, default in (
        ("norm", norm, isinstance(norm, str)),
        ("conv", conv, conv is None),
    ):
        if not default and (not callable(layer) or isinstance(layer, nn.Module)):
            raise ValueError(
                f"{field} must be a module class or a function that returns a module, not {layer!r}"
            )
    if not isinstance(activation, str) and (
        not callable(activation) or isinstance(activation, (type, nn.Module))
    ):
        raise ValueError(f"activation must be a name or a function of an array, not {activation!r}")


def make_norm(norm: Layer, **arguments: Any) -> nn.Module:
    """Return a norm of a user's class or factory, for the arguments that it has.

    Args:
      norm: a module class, a partial of one, or a function that returns a module with the call
        signature of batch norm.
      **arguments: those of :func:`flax_resnet.norms.batch_norm`.

    Raises:
      ValueError: the norm cannot be initialized to zero for ``zero_init_last``, or a function
        needs other arguments or returns no module.
    """
    accepted = _accepted(norm, arguments)
    if arguments.get("scale_init") is nn.initializers.zeros and "scale_init" not in accepted:
        raise ValueError(
            f"zero_init_last needs norms with the field scale_init, which {label(norm)} lacks"
        )
    cls = getattr(norm, "func", norm)
    if is_module_class(cls):
        cls = norms.with_batch_norm_call(cls)
        return cls(*getattr(norm, "args", ()), **getattr(norm, "keywords", {}) | accepted)
    try:
        inspect.signature(norm).bind(**accepted)
    except TypeError as error:
        raise PartError(
            f"norm {label(norm)}{inspect.signature(norm)} must be a module class, or a function of"
            f" any of {', '.join(arguments)} that returns a module: {error}"
        ) from None
    module = norm(**accepted)
    if not isinstance(module, nn.Module):
        raise PartError(f"norm {label(norm)} must return a module, not {module!r:.80}")
    return module


def norm_factory(
    norm: str | Layer,
    *,
    dtype: jnp.dtype,
    epsilon: float,
    momentum: float,
    axis_name: str | None,
) -> Layer:
    """Return the factory of a network's norms.

    Args:
      norm: a registered name, or a user's class or factory.
      dtype: of the output.
      epsilon: added to the variance by registered norms.
      momentum: weight of the old running statistics of batch norm.
      axis_name: mapped axis over which batch norm averages.
    """
    if not isinstance(norm, str):
        return partial(make_norm, norm, dtype=dtype, axis_name=axis_name)
    statistics = dict(momentum=momentum, axis_name=axis_name) if norm == "batch" else {}
    return partial(NORMS[norm], dtype=dtype, epsilon=epsilon, **statistics)


def activate(activation: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Return an own activation of ``x``; raise ValueError if it changes the shape."""
    y = activation(x)
    if getattr(y, "shape", None) != x.shape:
        result = f"an array of shape {y.shape}" if hasattr(y, "shape") else repr(y)[:80]
        raise PartError(
            f"activation {label(activation)} returned {result} for a map of shape {x.shape}; it"
            " must keep the shape"
        )
    return y


def _accepted(make: Callable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a function takes and that it is not a partial with."""
    parameters = inspect.signature(make).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = getattr(make, "keywords", {})
    return {
        name: value
        for name, value in arguments.items()
        if (takes_any or name in parameters) and name not in given
    }


def conv_factory(conv: Layer) -> Layer:
    """Return the factory with the interface of :func:`flax_resnet.layers.conv`.

    Args:
      conv: a class with the fields of ``nn.Conv``, a partial of one, or such a factory.
    """
    own_class = is_module_class(getattr(conv, "func", conv))
    return partial(layers.conv, module=conv) if own_class else conv


def is_module_class(part: Any) -> bool:
    """Return whether ``part`` is a class of Linen modules."""
    return isinstance(part, type) and issubclass(part, nn.Module)


# Fields of a network that a block may lack if they have their default there, which is the block's.
_OPTIONAL = {
    "width_multiplier": "width_multiplier",
    "groups": "groups",
    "stride_conv": "stride_conv",
    "shortcut": "shortcut",
    "preactivation": "preactivation",
    "activate_identity": "activate_shortcut",
    "se_ratio": "se_ratio",
    "eca": "eca",
    "antialias": "antialias",
    "reduce_first": "reduce_first",
    "block_dropout": "dropout",
    "drop_path": "drop_path",
    "zero_init_last": "zero_init_last",
    "output_stride": "dilations",
}


def check_block(block: type, model: Any) -> None:
    """Raise ValueError if a class cannot be the block of a network with such fields."""
    if not is_module_class(block):
        raise ValueError(f"block must be a name or a class of modules, not {label(block)}")
    fields = block_fields(block)
    if lacking := [name for name in ("width", "stride") if name not in fields]:
        raise ValueError(
            f"block {label(block)} has no field {' and no field '.join(lacking)}; a subclass of"
            " flax_resnet.blocks.Block has all"
        )
    if not isinstance(getattr(block, "expansion", None), int):
        raise ValueError(
            f"block {label(block)} needs a class attribute expansion: its output channels divided"
            " by width"
        )
    if issubclass(block, Block) and (block.__call__, block.convolutions) == (
        Block.__call__,
        Block.convolutions,
    ):
        raise ValueError(
            f"block {label(block)} defines no layers; define convolutions() or __call__(x, train)"
        )
    check_signature(f"block {label(block)}", block, "x")
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    for name, field in _OPTIONAL.items():
        value = getattr(model, name)
        if field not in fields and value != defaults[name]:
            raise ValueError(
                f"block {label(block)} has no field {field}, so {name}={value!r} would have no"
                f" effect; use {name}={defaults[name]!r}, or add the field"
            )


def check_signature(what: str, cls: type[nn.Module], argument: str) -> None:
    """Raise PartError unless modules of a class can be called with ``(argument, train)``."""
    signature = inspect.signature(cls.__call__)
    try:
        signature.bind(None, None, False)
        signature.bind(None, None, train=False)
    except TypeError:
        parameters = ", ".join(list(signature.parameters)[1:])
        raise PartError(
            f"{what} must be called by __call__(self, {argument}, train=False), not by"
            f" __call__(self, {parameters})"
        ) from None


def block_fields(block: type) -> set[str]:
    """Return the names of the fields that a block takes."""
    return {field.name for field in dataclasses.fields(block)}


def check_output(block: nn.Module, y: jax.Array, shape: tuple[int, ...], channels: int) -> None:
    """Raise ValueError if a block's output is not what its fields say.

    Args:
      block: the block.
      y: its output.
      shape: of its input ``(N, H, W, C)``.
      channels: that the output must have.
    """
    expected = (shape[0], *(-(-size // block.stride) for size in shape[1:3]), channels)
    if getattr(y, "shape", None) != expected:
        result = f"a map of shape {y.shape}" if hasattr(y, "shape") else repr(y)[:80]
        raise PartError(f"{describe_block(block)} returned {result}, not {expected}")


def folds_norms(model: Any, block: type | None = None) -> bool:
    """Return whether batch norm can be folded into the convolutions of a block, or of the stem.

    The names of layers show which convolution a norm follows, except in a block with an own
    ``__call__``; an own convolution might not be linear in its kernel.
    """
    numbered = block is None or (issubclass(block, Block) and block.__call__ is Block.__call__)
    return numbered and model.conv is None
