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

from flax_resnet.weights.loading import load_weights, read_weights
from flax_resnet.weights.published.pretrained import from_pretrained
from flax_resnet.weights.published.source_preprocessing import (
    SourcePreprocessing,
    find_preprocessing,
)
from flax_resnet.weights.report import Report
from flax_resnet.weights.saving import save_weights
from flax_resnet.weights.tensors import WeightsError

__all__ = [
    "Report",
    "SourcePreprocessing",
    "WeightsError",
    "find_preprocessing",
    "from_pretrained",
    "load_weights",
    "read_weights",
    "save_weights",
]
