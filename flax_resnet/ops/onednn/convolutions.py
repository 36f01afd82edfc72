"""oneDNN's computations for a convolution of a given size, and for its two gradients."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from ctypes import c_void_p

from flax_resnet.ops.onednn import library


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution.

    Attributes:
      images: its input, ``(N, H, W, C)``.
      kernel: ``(height, width, C / groups, outputs)``.
      strides, dilation: of height and width.
      padding: ``(top, bottom, left, right)``.
      groups: number of groups of channels.
    """

    images: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def outputs(self) -> tuple[int, ...]:
        """Size of the output, ``(N, H, W, outputs)``."""
        top, bottom, left, right = self.padding
        sizes = zip(
            *(self.images[1:3], (top + bottom, left + right)),
            *(self.kernel[:2], self.dilation, self.strides),
            strict=True,
        )
        height, width = (
            (size + padding - (kernel - 1) * dilation - 1) // stride + 1
            for size, padding, kernel, dilation, stride in sizes
        )
        return (self.images[0], height, width, self.kernel[3])


@dataclasses.dataclass(frozen=True)
class Step:
    """A computation: its descriptor, and places in ``Program.layouts`` by numbers of arguments."""

    descriptor: c_void_p
    arrays: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Program:
    """A convolution, or one of its gradients.

    Attributes:
      layouts: of the two arguments, the result, and the kernel as the library orders it.
      steps: what is computed: the convolution, and the reordering of its kernel.
    """

    layouts: Sequence[c_void_p]
    steps: tuple[Step, Step]


MAX_ELEMENTS = 2**31 - 1  # of an array; some sizes above end the process
FIRST, SECOND, RESULT, REORDERED = range(4)  # places in ``Program.layouts``


class _Layouts:
    """Layouts of a convolution's arrays, and the descriptors of its computations."""

    def __init__(self, geometry: Geometry):
        self._sizes = (
            library.int64s(geometry.strides),
            library.int64s([rate - 1 for rate in geometry.dilation]),
            library.int64s(geometry.padding[::2]),
            library.int64s(geometry.padding[1::2]),
        )
        self.images = _channels_last(geometry.images)
        self.outputs = _channels_last(geometry.outputs)
        self.kernel = _kernel(geometry, as_in_flax=True)
        self._any_kernel = _kernel(geometry, as_in_flax=False)

    def forward(self) -> c_void_p:
        """Return the descriptor of the convolution."""
        arrays = self.images, self._any_kernel, None, self.outputs  # no bias
        given = library.engine(), library.FORWARD_TRAINING, library.DIRECT, *arrays, *self._sizes
        name = "dnnl_convolution_forward_primitive_desc_create"
        return library.created(name, *given, library.attributes())

    def image_gradient(self) -> c_void_p:
        """Return the descriptor of the gradient with respect to the images."""
        return self._backward("data", (self.images, self._any_kernel, self.outputs))

    def kernel_gradient(self) -> c_void_p:
        """Return the descriptor of the gradient with respect to the kernel."""
        return self._backward("weights", (self.images, self._any_kernel, None, self.outputs))

    def _backward(self, name: str, arrays: tuple) -> c_void_p:
        create = f"dnnl_convolution_backward_{name}_primitive_desc_create"
        given = library.engine(), library.DIRECT, *arrays, *self._sizes, self.forward()
        return library.created(create, *given, library.attributes())


def is_fast(geometry: Geometry) -> bool:
    """Return whether the library computes a convolution and its gradients by optimized code.

    Reference code, for some large kernels and paddings, is left to XLA. The library
    has no empty arrays (of a kernel that is larger than its padded input) and no negative padding.
    """
    sizes = geometry.images, geometry.kernel, geometry.outputs
    if min(map(min, sizes)) < 1 or max(map(math.prod, sizes)) > MAX_ELEMENTS:
        return False
    if min(geometry.padding) < 0:
        return False
    try:
        layouts = _Layouts(geometry)
        makers = layouts.forward, layouts.image_gradient, layouts.kernel_gradient
        names = [library.implementation(make()) for make in makers]
    except library.OneDnnError:
        return False
    return not any(name.startswith("ref") for name in names)


def _channels_last(sizes: Sequence[int]) -> c_void_p:
    """Return the layout of ``(N, H, W, C)``, whose order in the library is N, C, H, W."""
    n, h, w, c = sizes
    return library.layout((n, c, h, w), (h * w * c, 1, w * c, c))


def _kernel(geometry: Geometry, as_in_flax: bool) -> c_void_p:
    """Return the layout of a kernel: that of Flax, or any that is fast."""
    h, w, inputs, outputs = geometry.kernel
    groups = geometry.groups
    sizes: tuple[int, ...] = (outputs // groups, inputs, h, w)
    strides: tuple[int, ...] = (1, outputs, w * inputs * outputs, inputs * outputs)
    if groups > 1:
        sizes, strides = (groups, *sizes), (outputs // groups, *strides)
    return library.layout(sizes, strides if as_in_flax else None)


def forward(geometry: Geometry) -> Program:
    """Return the program ``(images, kernel) → outputs``."""
    layouts = _Layouts(geometry)
    arrays = {library.SRC: FIRST, library.WEIGHTS: REORDERED, library.DST: RESULT}
    step = Step(layouts.forward(), arrays)
    return _with_kernel(layouts.images, layouts.kernel, layouts.outputs, step)


def image_gradient(geometry: Geometry) -> Program:
    """Return the program ``(gradient of the outputs, kernel) → gradient of the images``."""
    layouts = _Layouts(geometry)
    arrays = {library.DIFF_DST: FIRST, library.WEIGHTS: REORDERED, library.DIFF_SRC: RESULT}
    step = Step(layouts.image_gradient(), arrays)
    return _with_kernel(layouts.outputs, layouts.kernel, layouts.images, step)


def _with_kernel(given: c_void_p, kernel: c_void_p, result: c_void_p, step: Step) -> Program:
    """Return a program that first brings the kernel, its second argument, to the fast layout."""
    inside = library.layout_of(step.descriptor, library.WEIGHTS_LAYOUT)
    arrays = {library.REORDER_FROM: SECOND, library.REORDER_TO: REORDERED}
    reorder = Step(library.reorder(kernel, inside), arrays)
    return Program((given, kernel, result, inside), (reorder, step))


def kernel_gradient(geometry: Geometry) -> Program:
    """Return the program ``(images, gradient of the outputs) → gradient of the kernel``."""
    layouts = _Layouts(geometry)
    arrays = {library.SRC: FIRST, library.DIFF_DST: SECOND, library.DIFF_WEIGHTS: REORDERED}
    step = Step(layouts.kernel_gradient(), arrays)
    inside = library.layout_of(step.descriptor, library.DIFF_WEIGHTS_LAYOUT)
    arrays = {library.REORDER_FROM: REORDERED, library.REORDER_TO: RESULT}
    reorder = Step(library.reorder(inside, layouts.kernel), arrays)
    return Program((layouts.images, layouts.outputs, layouts.kernel, inside), (step, reorder))


MAKERS: dict[str, Callable[[Geometry], Program]] = {
    "forward": forward,
    "image_gradient": image_gradient,
    "kernel_gradient": kernel_gradient,
}
