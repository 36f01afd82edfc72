"""ResNet-50 V2 (pre-activation) on ImageNet: the classic 90 epochs.

Source: He et al. 2016 (arXiv:1603.05027); the network is Keras's ResNet50V2, the recipe that
of resnet50_imagenet.
Reports: Keras 76.0 % top-1, with another recipe and images scaled to -1…1. Ours: not measured.
Assumes: one GPU of 40 GB, or several.

    python -m train.main --config configs/resnet50v2_imagenet.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    return imagenet("resnet50v2")
