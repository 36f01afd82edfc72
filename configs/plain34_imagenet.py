"""The 34-layer network without shortcuts on ImageNet, to compare with resnet34_imagenet.

Source: He et al. 2015 (arXiv:1512.03385, section 4.1); configs/bases.py lists the differences.
Reports: He et al. 28.54 % top-1 error with ten crops, against 25.03 % with parameter-free
shortcuts. Ours: not measured.
Assumes: one GPU of 16 GB, or several.

    python -m train.main --config configs/plain34_imagenet.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    return imagenet("plain34")
