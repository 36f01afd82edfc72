"""Backend-specific convolution, pooling and ReLU, numerically equivalent to XLA's.

The networks call :func:`conv_general_dilated`, :func:`max_pool`, :func:`relu` and
:func:`relu_of_sum`; batch norm calls :func:`uses_custom_gradient`. The implementation is chosen
while a function is traced, by backend, dtype and shape:

* CPU, float32: convolutions by :mod:`~flax_resnet.ops.winograd` (3×3, 128 channels or more),
  :mod:`~flax_resnet.ops.im2col` (small maps) or matrix products (1×1), and the pooling gradient of
  :mod:`~flax_resnet.ops.pooling`, where ``benchmarks/train_step.py`` and ``studies/conv_layers.py``
  measured that they are faster. With the extra ``onednn`` all others are by that library
  (:mod:`~flax_resnet.ops.onednn`).
* GPU: gradients of batch norm (:mod:`~flax_resnet.ops.norm`), pooling and the ReLU after a sum
  that read and write less memory, as counted by ``benchmarks/studies/memory_traffic.py``.
* Elsewhere, and inside :func:`use_xla_ops`: XLA's own operations.

All agree with XLA's operations within float32 rounding (1e-5 of the result's norm, tested).
"""

from flax_resnet.ops.dispatch import BACKENDS as BACKENDS
from flax_resnet.ops.dispatch import conv_general_dilated as conv_general_dilated
from flax_resnet.ops.dispatch import default_backend as default_backend
from flax_resnet.ops.dispatch import max_pool as max_pool
from flax_resnet.ops.dispatch import relu as relu
from flax_resnet.ops.dispatch import relu_of_sum as relu_of_sum
from flax_resnet.ops.dispatch import use_backend as use_backend
from flax_resnet.ops.dispatch import use_xla_ops as use_xla_ops
from flax_resnet.ops.dispatch import uses_custom_gradient as uses_custom_gradient
