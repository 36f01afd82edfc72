"""Read and write weights of torchvision, timm, Hugging Face and Keras models.

>>> variables = load_weights("resnet50", "resnet50.safetensors")
>>> save_weights("resnet50", variables, "out.safetensors", layout="torchvision")
>>> model, variables = from_pretrained("resnet50.a1_in1k", num_classes=10)

From the shell::

    python -m flax_resnet.weights inspect FILE
    python -m flax_resnet.weights convert IN OUT --layout torchvision

PyTorch is not needed, and reading never runs code from a file. HDF5 files need h5py and the
Hugging Face Hub needs huggingface_hub; both are in the extra ``pretrained``.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Imported on first use: importing JAX takes a second, which would delay `--help`.
_MODULES = {
    "Report": "report",
    "SourcePreprocessing": "published.source_preprocessing",
    "WeightsError": "tensors",
    "find_preprocessing": "published.source_preprocessing",
    "from_pretrained": "published.pretrained",
    "load_weights": "loading",
    "read_weights": "loading",
    "save_weights": "saving",
}

__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from flax_resnet.weights.loading import load_weights as load_weights
    from flax_resnet.weights.loading import read_weights as read_weights
    from flax_resnet.weights.published.pretrained import from_pretrained as from_pretrained
    from flax_resnet.weights.published.source_preprocessing import (
        SourcePreprocessing as SourcePreprocessing,
    )
    from flax_resnet.weights.published.source_preprocessing import (
        find_preprocessing as find_preprocessing,
    )
    from flax_resnet.weights.report import Report as Report
    from flax_resnet.weights.saving import save_weights as save_weights
    from flax_resnet.weights.tensors import WeightsError as WeightsError


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
