"""ResNet-34 on ImageNet: the classic 90 epochs.

Source: He et al. 2015 (arXiv:1512.03385), as torchvision trains it; configs/bases.py lists
the differences.
Reports: torchvision's V1 weights 73.314 % top-1; He et al. 24.52 % top-1 error with ten crops
with projections (option B). Ours: not measured.
Assumes: one GPU of 16 GB, or several.

    python -m train.main --config configs/resnet34_imagenet.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    return imagenet("resnet34")
