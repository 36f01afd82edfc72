"""Backend-specific convolution, pooling and ReLU, numerically equivalent to XLA's."""

from flax_resnet.ops.dispatch import (
    FORMS,
    conv_general_dilated,
    max_pool,
    relu,
    relu_of_sum,
    use_backend,
    use_xla_ops,
    uses_custom_gradient,
)

__all__ = [
    "FORMS",
    "conv_general_dilated",
    "max_pool",
    "relu",
    "relu_of_sum",
    "use_backend",
    "use_xla_ops",
    "uses_custom_gradient",
]
