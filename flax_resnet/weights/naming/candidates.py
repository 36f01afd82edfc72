"""Named networks that a file may be of, by the names of its tensors."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from flax_resnet.dense.variants import DENSE
from flax_resnet.resnet import ResNet
from flax_resnet.stems import STEMS
from flax_resnet.variants import VARIANTS, create_model
from flax_resnet.weights.naming.layouts import DetectedLayout


def candidates(detected: DetectedLayout, names: Collection[str]) -> Iterator[str]:
    """Yield named networks whose parts are those of the file.

    Comparing all tensors takes a second per network, and dozens have the same number of blocks.

    Args:
      detected: the file's layout.
      names: its tensors' names.
    """
    for name, row in VARIANTS.items():
        if tuple(row["stage_sizes"]) == detected.stage_sizes:
            model = create_model(name)
            if all(_has(detected, model, names, p) == has for p, has in _parts(model).items()):
                yield name


def dense_candidates(detected: DetectedLayout, names: Collection[str]) -> Iterator[str]:
    """Yield named networks with a head for pixels whose blocks and head may be those of the file.

    Args:
      detected: the file's layout.
      names: its tensors' names, also beside the backbone.
    """
    leaves = [("layer1", "conv"), ("pyramid", "lateral1")]
    leaves = [("params", "head", *modules, "kernel") for modules in (*leaves, ("classifier",))]
    for name in DENSE:
        model = create_model(name)
        named = [detected.layout.tensor_name(model, leaf) in names for leaf in leaves]
        if tuple(model.backbone.stage_sizes) == detected.stage_sizes and sum(named) == 2:
            yield name


def without_hidden_fields(names: Sequence[str]) -> list[str]:
    """Return the names without networks whose fields no file shows, if others are left.

    An anti-aliased network has the tensors of the one without; the latter is far more common.
    """
    plain = [name for name in names if VARIANTS[name].get("antialias") is None]
    return plain or list(names)


def hidden_twins(name: str) -> list[str]:
    """Return the named networks with the tensors of this one, which another field distinguishes."""
    if name not in VARIANTS:
        return []
    shown = _shown_fields(name)
    return [other for other in VARIANTS if other != name and _shown_fields(other) == shown]


def _shown_fields(name: str) -> dict[str, Any]:
    return {field: value for field, value in VARIANTS[name].items() if field != "antialias"}


def _parts(model: ResNet) -> dict[tuple[str, ...], bool]:
    """Return leaves of a network, and whether it has them."""
    convolutions = len(STEMS[model.stem].convolutions)
    block = ("params", "stage1_block1")
    return {
        ("params", "stem_conv", "kernel"): convolutions == 1,
        ("params", "stem_conv3", "kernel"): convolutions > 2,
        ("params", "stem_conv4", "kernel"): convolutions > 3,
        ("params", "final_norm", "scale"): model.preactivation,
        ("batch_stats", "stage1_block1", "norm1", "mean"): model.norm == "batch",
        (*block, "conv3", "kernel"): model.block == "bottleneck",
        (*block, "se", "reduce", "kernel"): bool(model.se_ratio),
        (*block, "eca", "conv", "kernel"): model.eca,
    }


def _has(
    detected: DetectedLayout, model: ResNet, names: Collection[str], leaf: tuple[str, ...]
) -> bool:
    return detected.layout.tensor_name(model, leaf) in names
