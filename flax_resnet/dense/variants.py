"""Table of the named networks for dense prediction: a row is one line of fields."""

from functools import partial

from flax_resnet.dense.on_backbone import OnBackbone
from flax_resnet.dense.segmentation import SegmentationModel

# Output stride 8 as torchvision's networks; output_stride=16 trains in a quarter of the memory.
_FCN = partial(OnBackbone, SegmentationModel, head="fcn", output_stride=8)
_DEEPLAB = partial(OnBackbone, SegmentationModel, head="deeplabv3", output_stride=8)
_SEMANTIC_FPN = partial(OnBackbone, SegmentationModel, head="semantic_fpn")

DENSE = {
    **{f"fcn_{name}": _FCN(name) for name in ("resnet50", "resnet101")},
    **{f"deeplabv3_{name}": _DEEPLAB(name) for name in ("resnet50", "resnet101")},
    **{
        f"semantic_fpn_{name}": _SEMANTIC_FPN(name)
        for name in ("resnet18", "resnet50", "resnet101")
    },
}
