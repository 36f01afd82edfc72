"""ResNets as Flax Linen modules."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Imported on first use: importing JAX takes a second, which would delay `--help` and usage errors.
_MODULES = {
    "Block": "blocks",
    "BottleneckBlock": "blocks",
    "FeatureInfo": "resnet",
    "FeaturePyramid": "dense.pyramid",
    "ResNet": "resnet",
    "ResNet101": "variants",
    "ResNet152": "variants",
    "ResNet18": "variants",
    "ResNet34": "variants",
    "ResNet50": "variants",
    "ResidualBlock": "blocks",
    "SegmentationModel": "dense.segmentation",
    "create_model": "variants",
    "feature_info": "variants",
    "fold_batch_norm": "folding",
    "from_pretrained": "weights",
    "init_variables": "init",
    "list_models": "variants",
    "load_run": "runs",
    "load_weights": "weights",
    "register_activation": "layers",
    "register_block": "blocks",
    "register_model": "variants",
    "register_norm": "norms",
    "save_weights": "weights",
    "summarize": "network_summary",
}

__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from flax_resnet.blocks import Block as Block
    from flax_resnet.blocks import BottleneckBlock as BottleneckBlock
    from flax_resnet.blocks import ResidualBlock as ResidualBlock
    from flax_resnet.blocks import register_block as register_block
    from flax_resnet.dense.pyramid import FeaturePyramid as FeaturePyramid
    from flax_resnet.dense.segmentation import SegmentationModel as SegmentationModel
    from flax_resnet.folding import fold_batch_norm as fold_batch_norm
    from flax_resnet.init import init_variables as init_variables
    from flax_resnet.layers import register_activation as register_activation
    from flax_resnet.network_summary import summarize as summarize
    from flax_resnet.norms import register_norm as register_norm
    from flax_resnet.resnet import FeatureInfo as FeatureInfo
    from flax_resnet.resnet import ResNet as ResNet
    from flax_resnet.runs import load_run as load_run
    from flax_resnet.variants import ResNet18 as ResNet18
    from flax_resnet.variants import ResNet34 as ResNet34
    from flax_resnet.variants import ResNet50 as ResNet50
    from flax_resnet.variants import ResNet101 as ResNet101
    from flax_resnet.variants import ResNet152 as ResNet152
    from flax_resnet.variants import create_model as create_model
    from flax_resnet.variants import feature_info as feature_info
    from flax_resnet.variants import list_models as list_models
    from flax_resnet.variants import register_model as register_model
    from flax_resnet.weights import from_pretrained as from_pretrained
    from flax_resnet.weights import load_weights as load_weights
    from flax_resnet.weights import save_weights as save_weights


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("flax_resnet.ops")
    if name == "load_pretrained":  # an AttributeError would lose its message in an import
        raise ImportError(
            "load_pretrained is now from_pretrained, which returns (model, variables)"
        )
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"flax_resnet.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "ops"})
