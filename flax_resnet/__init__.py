"""ResNets as Flax linen modules."""

import importlib

from flax_resnet.blocks import BottleneckBlock, ResidualBlock
from flax_resnet.folding import fold_batch_norm
from flax_resnet.init import init_variables
from flax_resnet.resnet import Feature, ResNet
from flax_resnet.runs import load_run
from flax_resnet.variants import create_model, feature_info, list_models
from flax_resnet.weights import load_pretrained, load_weights, save_weights

__all__ = [
    "BottleneckBlock",
    "Feature",
    "ResNet",
    "ResidualBlock",
    "create_model",
    "feature_info",
    "fold_batch_norm",
    "init_variables",
    "list_models",
    "load_pretrained",
    "load_run",
    "load_weights",
    "save_weights",
    "summarize",
]

__version__ = "0.1.0"

# Imported on first use: a command too, of which `python -m` warns otherwise.
_LAZY = {"summarize": "flax_resnet.summary"}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
