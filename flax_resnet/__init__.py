"""ResNets as Flax linen modules."""

from flax_resnet.blocks import BottleneckBlock, ResidualBlock
from flax_resnet.init import init_variables
from flax_resnet.resnet import ResNet
from flax_resnet.variants import create_model, list_models

__all__ = [
    "BottleneckBlock",
    "ResNet",
    "ResidualBlock",
    "create_model",
    "init_variables",
    "list_models",
]

__version__ = "0.1.0"
