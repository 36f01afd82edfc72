"""The 34-layer net without shortcuts on ImageNet, which resnet34_imagenet is better than.

Source: He et al. 2015 (arXiv:1512.03385, section 4.1); configs/bases.py says what differs.
Reports: He et al. 28.54 % top-1 error of ten crops, against 25.03 % with shortcuts that have no
parameters. Ours: not measured.
Assumes: one GPU of 16 GB, or several.

    python -m train.main --config configs/plain34_imagenet.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    return imagenet("plain34")
