"""ResNeXt-50 (32×4d) on ImageNet: the classic 90 epochs.

Source: Xie et al. 2016 (arXiv:1611.05431, section 4), who train as He et al. with the crops
of fb.resnet.torch; configs/bases.py lists the differences.
Reports: torchvision's V1 weights 77.618 % top-1, after 100 epochs. Ours: not measured.
Assumes: one GPU of 40 GB, or several.

    python -m train.main --config configs/resnext50_imagenet.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    return imagenet("resnext50_32x4d")
