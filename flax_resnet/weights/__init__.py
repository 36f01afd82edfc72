"""Weights of torchvision, timm, Hugging Face and Keras in and out.

>>> variables = load_weights("resnet50", "resnet50.safetensors")
>>> save_weights(variables, "out.safetensors", model="resnet50", layout="torchvision")

From the shell::

    python -m flax_resnet.weights inspect FILE
    python -m flax_resnet.weights convert IN OUT --layout torchvision

Nothing here needs PyTorch, and reading runs no code from a file. HDF5 files need h5py and
the hub huggingface_hub, both in the extra ``pretrained``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from flax_resnet.resnet import ResNet
from flax_resnet.weights import hub
from flax_resnet.weights.loading import read_weights
from flax_resnet.weights.report import Report
from flax_resnet.weights.saving import save_variables
from flax_resnet.weights.tensors import WeightsError

__all__ = [
    "Report",
    "WeightsError",
    "load_pretrained",
    "load_weights",
    "read_weights",
    "save_weights",
]

_log = logging.getLogger(__name__)


def load_weights(
    model: str | ResNet,
    path: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    strict: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Reads ``{"params", "batch_stats"}`` as float32 NumPy arrays.

    The file's format is told by its content and its layout by the names in it: torchvision,
    timm or Hugging Face transformers in ``.safetensors`` or ``.pth``/``.pt``/``.bin``, Keras
    Applications in ``.h5``/``.weights.h5``/``.keras``, our names in ``.npz``; or a directory:
    an Orbax checkpoint, or a run's workdir, of which the last step is read.

    What was loaded, skipped, missing or of another shape is logged, as a warning where the
    network is not wholly the file's; :func:`read_weights` takes the same arguments and
    returns that report too. The stem takes as many image channels as the file's.

    Args:
      model: a name of :func:`flax_resnet.list_models`, or a network.
      path: the file or directory.
      num_classes: of the head; where the file's has another number or none, the head is
        drawn afresh; 0 leaves it out. Unless told, a network's own, and for a name the
        file's.
      strict: refuse a file that lacks any of the stem and blocks, or has more of them.
        Otherwise what fits is taken and the rest drawn afresh.
      seed: of what is drawn afresh, as :func:`flax_resnet.init_variables` does.

    Raises WeightsError, a ValueError, in one line that says what to do: the file is
    missing, empty, cut short, damaged, of an unknown format or another network, would run
    code, or holds values that are not finite or not floating point.
    """
    variables, report = read_weights(model, path, num_classes=num_classes, strict=strict, seed=seed)
    _log.log(logging.INFO if report.complete else logging.WARNING, "%s", report)
    return variables


def save_weights(
    variables: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    model: str | ResNet,
    layout: str = "torchvision",
) -> None:
    """Writes variables to ``.safetensors`` under another library's names, in float32.

    The file is complete or absent: it is written beside ``path`` and then renamed. In
    PyTorch: ``net.load_state_dict(safetensors.torch.load_file(path), strict=True)``. A warning
    is logged where no network of the layout's library has the same fields; the file's
    metadata keeps those that its names do not show, and :func:`load_weights` compares them.

    Args:
      variables: ``{"params", "batch_stats"}`` of one device, not replicated.
      path: ends in ``.safetensors``.
      model: the name or network that they belong to.
      layout: ``"torchvision"``, ``"timm"``, ``"huggingface"`` or ``"flax"``, our own names.

    Raises WeightsError, a ValueError, where the variables are not the network's, are not
    finite, or the layout has no name for one of its layers.
    """
    save_variables(variables, path, model, layout)


def load_pretrained(
    identity: str,
    *,
    model: str | ResNet | None = None,
    num_classes: int | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Fetches published weights from the Hugging Face hub; as :func:`load_weights` gives them.

    >>> variables = load_pretrained("resnet50.a1_in1k", num_classes=10)
    >>> model = create_model("resnet50", num_classes=10)

    Args:
      identity: one of timm's ids, or ``OWNER/REPOSITORY`` such as ``microsoft/resnet-50``.
      model: the network, where the id does not begin with its name.
      num_classes: as in :func:`load_weights`.
      revision: a branch, tag or commit.

    Needs the extra ``pretrained``. Raises WeightsError where that or the network is
    missing, or there is no such id.
    """
    network = hub.model_of(identity) if model is None else model
    return load_weights(network, hub.fetch(identity, revision), num_classes=num_classes)
