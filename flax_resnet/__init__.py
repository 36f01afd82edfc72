"""ResNets as Flax linen modules."""

from flax_resnet.blocks import BottleneckBlock, ResidualBlock
from flax_resnet.init import init_variables
from flax_resnet.resnet import Feature, ResNet
from flax_resnet.variants import create_model, feature_info, list_models

__all__ = [
    "BottleneckBlock",
    "Feature",
    "ResNet",
    "ResidualBlock",
    "create_model",
    "feature_info",
    "init_variables",
    "list_models",
]

__version__ = "0.1.0"
