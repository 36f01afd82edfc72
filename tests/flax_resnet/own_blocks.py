"""Blocks of users, and a small network for tests."""

from flax import linen as nn

from flax_resnet.blocks import Block

SMALL = dict(stage_sizes=(1,), block="residual", width=8, stem="cifar", num_classes=4)


class Doubling(Block):
    """A block that doubles the channels by one convolution."""

    expansion = 2

    def convolutions(self):
        return [dict(features=2 * self.width, kernel=3, stride=self.stride)]


class Plain(nn.Module):
    """A block without Block's fields."""

    width: int
    stride: int = 1
    expansion = 1

    @nn.compact
    def __call__(self, x, train=False):
        y = nn.Conv(self.width, (3, 3), self.stride, padding=1)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train)(y))
