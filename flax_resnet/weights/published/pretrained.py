"""A network with published weights, in one call."""

import os
from typing import Any

from flax import linen as nn

from flax_resnet.text import truncate
from flax_resnet.variants import create_model, list_models
from flax_resnet.weights.loading import classes_in, load_weights, only_model
from flax_resnet.weights.published import torchvision_files
from flax_resnet.weights.published.hub import download, is_path
from flax_resnet.weights.tensors import WeightsError


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    model: str | nn.Module | None = None,
    num_classes: int | None = None,
    revision: str | None = None,
    seed: int = 0,
    channels: int | None = None,
    **fields: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network with published weights, or with those of a file.

    >>> model, variables = from_pretrained("resnet50.a1_in1k", num_classes=10)
    >>> logits = model.apply(variables, images)

    Args:
      source: an id of timm, ``OWNER/REPOSITORY`` of the Hugging Face Hub such as
        ``microsoft/resnet-50``, an id of torchvision such as ``ResNet50_Weights.IMAGENET1K_V2``,
        or a file or checkpoint that :func:`load_weights` reads.
      model: the network or its name; required if the id does not begin with its name, or if
        several named networks fit the file.
      num_classes: classes of the head, by default those of the weights. A head with another number
        is newly initialized, as :func:`init_variables` does. 0 omits it.
      revision: a branch, tag or commit of the hub.
      seed: seed of newly initialized variables.
      channels: image channels, as in :func:`load_weights`; default: those of the weights.
      **fields: override fields of the network, such as ``dtype`` or ``output_stride``.

    Returns:
      The network and its ``{"params", "batch_stats"}``, float32 NumPy arrays.

    Raises:
      WeightsError: there are no such weights, they are not those of the network, or the extra
        ``pretrained`` is required but not installed. The message has one line.
      ValueError: a field is invalid.
    """
    source = os.fspath(source)
    local = is_path(source)
    path: str | os.PathLike[str] = os.path.expanduser(source) if local else ""
    if model is None:
        model = only_model(path) if local else _model_name(source)
    is_name = isinstance(model, str)
    network = create_model(model, **fields) if is_name else model.clone(**fields)
    if not local:
        path = download(source, revision)
    if num_classes is None:
        num_classes = network.num_classes
        if is_name:
            num_classes = classes_in(path, network) or num_classes
    network = network.clone(num_classes=num_classes)
    return network, load_weights(network, path, seed=seed, channels=channels)


def _model_name(identity: str) -> str:
    """Return the model name in an id: resnet50 for resnet50.a1_in1k and microsoft/resnet-50."""
    if (published := torchvision_files.find_by_id(identity)) is not None:
        return published.model
    name = identity.rpartition("/")[2].partition(".")[0].replace("-", "").lower()
    if name not in list_models():
        raise WeightsError(
            f"{truncate(identity)} does not begin with a model name ({truncate(name)!r} is not in"
            " list_models()); pass the network as model=…"
        )
    if name == identity:
        raise WeightsError(
            f"{name} is a network; add the tag of its weights, as in resnet50.a1_in1k (see"
            " https://huggingface.co/timm)"
        )
    return name
