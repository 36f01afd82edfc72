"""The same networks in PyTorch, built from torchvision's blocks."""

from __future__ import annotations

import torch
from torch import nn

from tests.flax_resnet.peers import import_torchvision

import_torchvision()
from torchvision.models import get_model  # noqa: E402
from torchvision.models.resnet import BasicBlock  # noqa: E402


def make(name: str, stem: str | None = None, num_classes: int = 1000) -> nn.Module:
    """Return torchvision's network, or a CIFAR network of He et al. 2015, section 4.2."""
    depth = name.removeprefix("resnet")
    if depth in ("20", "32", "44", "56", "110"):
        return CifarResNet((int(depth) - 2) // 6, num_classes)
    net = get_model(name, num_classes=num_classes)
    if stem == "cifar":
        net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    return net


class ThinAndPad(nn.Module):
    """Shortcut option A: every other pixel, and zeros for new channels."""

    def __init__(self, new: int):
        super().__init__()
        self.pads = (0, 0, 0, 0, new // 2, new - new // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], self.pads)


class CifarResNet(nn.Sequential):
    """6n + 2 layers of 16, 32 and 64 channels with parameter-free shortcuts."""

    def __init__(self, blocks: int, num_classes: int = 10):
        layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
        channels = 16
        for width in (16, 32, 64):
            for _ in range(blocks):
                widens = width != channels
                shortcut = ThinAndPad(width - channels) if widens else None
                layers.append(BasicBlock(channels, width, 2 if widens else 1, shortcut))
                channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
