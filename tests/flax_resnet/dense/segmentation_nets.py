"""torchvision's networks for segmentation with few channels, and ours with the same fields."""

import importlib

from flax_resnet import create_model
from tests.flax_resnet.peers import peer

BLOCKS = (1, 1, 2, 2)  # the second block of a dilated stage has another dilation than the first
CLASSES = 5
HEIGHT, WIDTH = 65, 49  # odd, so that maps are rounded up
HEADS = ("fcn", "deeplabv3")
RATES = (2, 3, 4)  # with those of the paper only the center of a kernel would be on maps of 9×7


def torch_net(head, classes=CLASSES):
    """Return torchvision's network on a ResNet with an eighth of the usual channels."""
    peer("torchvision")
    resnet = importlib.import_module("torchvision.models.resnet")
    segmentation = importlib.import_module(f"torchvision.models.segmentation.{head}")
    utils = importlib.import_module("torchvision.models._utils")
    fcn = importlib.import_module("torchvision.models.segmentation.fcn")

    class Narrow(resnet.ResNet):
        def _make_layer(self, block, planes, *args, **kwargs):
            return super()._make_layer(block, planes // 8, *args, **kwargs)

    dilated = [False, True, True]
    backbone = Narrow(resnet.Bottleneck, BLOCKS, replace_stride_with_dilation=dilated)
    backbone = utils.IntermediateLayerGetter(backbone, {"layer4": "out", "layer3": "aux"})
    if head == "fcn":
        return segmentation.FCN(backbone, fcn.FCNHead(256, classes), fcn.FCNHead(128, classes))
    classifier = segmentation.DeepLabHead(256, classes, RATES)
    return segmentation.DeepLabV3(backbone, classifier, fcn.FCNHead(128, classes))


def model(head, **fields):
    """Return our network with the fields of :func:`torch_net`."""
    small = dict(stage_sizes=BLOCKS, width=8, stem_width=64, num_classes=CLASSES, aux_head=True)
    small |= {"atrous_rates": RATES} if head == "deeplabv3" else {}
    return create_model(f"{head}_resnet50", **small | fields)
