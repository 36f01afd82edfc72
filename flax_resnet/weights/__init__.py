"""Read and write weights of torchvision, timm, Hugging Face and Keras models.

>>> variables = load_weights("resnet50", "resnet50.safetensors")
>>> save_weights(variables, "out.safetensors", model="resnet50", layout="torchvision")

From the shell::

    python -m flax_resnet.weights inspect FILE
    python -m flax_resnet.weights convert IN OUT --layout torchvision

PyTorch is not needed, and reading never runs code from a file. HDF5 files need h5py and the
Hugging Face Hub needs huggingface_hub; both are in the extra ``pretrained``.
"""

from flax_resnet.weights.hub import load_pretrained
from flax_resnet.weights.loading import load_weights, read_weights
from flax_resnet.weights.report import Report
from flax_resnet.weights.saving import save_weights
from flax_resnet.weights.tensors import WeightsError

__all__ = [
    "Report",
    "WeightsError",
    "load_pretrained",
    "load_weights",
    "read_weights",
    "save_weights",
]
