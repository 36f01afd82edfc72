"""Backend-specific convolution, pooling and ReLU, numerically equivalent to XLA's."""

from flax_resnet.ops.dispatch import (
    FORMS,
    conv_general_dilated,
    forms_of,
    max_pool,
    own_gradient,
    plain,
    relu,
    relu_of_sum,
)

__all__ = [
    "FORMS",
    "conv_general_dilated",
    "forms_of",
    "max_pool",
    "own_gradient",
    "plain",
    "relu",
    "relu_of_sum",
]
