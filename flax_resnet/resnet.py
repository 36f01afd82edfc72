"""ResNet: a stem, stages of blocks, and a head, each set by a field."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.blocks import BLOCKS, SHORTCUTS, batch_norm, conv

STEMS = ("imagenet", "small")


class ResNet(nn.Module):
    """A residual network (He et al. 2015, arXiv:1512.03385). Fields are checked at once.

    Attributes:
      stage_sizes: blocks in each stage; stages after the first halve the map.
      block: ``"residual"`` (two 3×3) or ``"bottleneck"`` (1×1, 3×3, 1×1).
      width: channels of the first stage's 3×3; doubles with every stage.
      stem: ``"imagenet"``, 7×7 stride 2 and a 3×3 stride 2 max-pool, or ``"small"``,
        3×3 stride 1 without a pool, for small images.
      shortcut: see :class:`flax_resnet.blocks.Shortcut`.
      num_classes: outputs of the linear head.
      zero_init_last: start every block as its shortcut.
      dtype: computation's type. Parameters, batch statistics and logits are float32.
      axis_name: the mapped axis over which batch statistics are averaged; ``None``
        computes them on each device for itself.
    """

    stage_sizes: Sequence[int]
    block: str = "bottleneck"
    width: int = 64
    stem: str = "imagenet"
    shortcut: str = "projection"
    num_classes: int = 1000
    zero_init_last: bool = False
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        super().__post_init__()
        for field, valid in (("block", BLOCKS), ("stem", STEMS), ("shortcut", SHORTCUTS)):
            if getattr(self, field) not in valid:
                raise ValueError(
                    f"unknown {field} {getattr(self, field)!r}; valid are {', '.join(valid)}"
                )
        for field, value in (("num_classes", self.num_classes), ("width", self.width)):
            if value < 1:
                raise ValueError(f"{field} must be at least 1, not {value}")
        if not self.stage_sizes or min(self.stage_sizes) < 1:
            raise ValueError(
                f"stage_sizes must name at least one block a stage, not {self.stage_sizes}"
            )

    def setup(self):
        # Small in scale, as torchvision and Keras have it: uniform in ±1/sqrt(fan_in).
        self.head = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        )

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Gives float32 logits ``(N, num_classes)`` for float images ``(N, H, W, C)``.

        With ``train=True`` batch norm uses the batch's own statistics and updates the
        running ones: apply with ``mutable=["batch_stats"]``.
        """
        last = self.endpoints(images, train)[f"stage{len(self.stage_sizes)}"]
        return self.head(jnp.mean(last, axis=(1, 2), dtype=jnp.float32))

    @nn.compact
    def endpoints(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Gives the maps after the stem and after each stage: ``stem``, ``stage1``, …

        For the ImageNet stem and ``(N, H, W, C)`` images the strides are 4, 4, 8, 16, 32
        (``stem`` is after the max-pool); for the small stem 1, 1, 2, 4, 8. Detection
        and segmentation heads take these. Maps are of the computation's ``dtype``.
        """
        if images.ndim != 4:
            raise ValueError(f"images must be (N, H, W, C), not of shape {images.shape}")
        conv_ = partial(conv, dtype=self.dtype)
        norm = partial(batch_norm, dtype=self.dtype, axis_name=self.axis_name)

        x = images.astype(self.dtype)
        kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = conv_(self.width, kernel, stride, name="stem_conv")(x)
        x = nn.relu(norm(use_running_average=not train, name="stem_norm")(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

        maps = {"stem": x}
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                x = BLOCKS[self.block](
                    width=self.width * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    shortcut=self.shortcut,
                    zero_init_last=self.zero_init_last,
                    conv=conv_,
                    norm=norm,
                    name=f"stage{stage + 1}_block{index + 1}",
                )(x, train)
            maps[f"stage{stage + 1}"] = x
        return maps
