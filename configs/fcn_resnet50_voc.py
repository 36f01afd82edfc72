"""FCN with a ResNet-50 on Pascal VOC 2012 with the additional masks of SBD.

Source: Long et al. 2015 (arXiv:1411.4038) with a ResNet of output stride 8, in the settings of
MMSegmentation's fcn_r50-d8_4xb4-20k_voc12aug-512x512, which are those of deeplabv3_resnet50_voc.
Differences: as there; the head is torchvision's, of one convolution and without the concatenated
input that MMSegmentation's has of two.
Reports: mIoU 67.08 % on the 1,449 images of val, single scale (MMSegmentation's model zoo).
Ours: not measured.
Assumes: as deeplabv3_resnet50_voc.

    python -m train.main --config configs/fcn_resnet50_voc.py \\
        --config.dataset.data_dir=DIR

DIR as in deeplabv3_resnet50_voc.
"""

from configs.bases import voc


def get_config():
    return voc("fcn_resnet50")
