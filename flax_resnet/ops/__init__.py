"""Backend-specific convolution, pooling and ReLU, numerically equivalent to XLA's."""

from flax_resnet.ops.dispatch import (
    FORMS,
    conv_general_dilated,
    max_pool,
    uses_custom_gradient,
    relu,
    relu_of_sum,
    use_backend,
    use_xla_ops,
)

__all__ = [
    "FORMS",
    "conv_general_dilated",
    "max_pool",
    "uses_custom_gradient",
    "relu",
    "relu_of_sum",
    "use_backend",
    "use_xla_ops",
]
