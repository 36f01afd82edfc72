"""ResNet-152 on ImageNet: the classic 90 epochs.

Source: He et al. 2015 (arXiv:1512.03385), as torchvision trains it; configs/bases.py lists
the differences. The stride is in the 3×3 convolution as in torchvision; resnet152_v1 has it in
the first 1×1 as in the paper.
Reports: torchvision's V1 weights 78.312 % top-1; He et al. 21.43 % top-1 error with ten crops.
Ours: not measured.
Assumes: one GPU of 80 GB, or several.

    python -m train.main --config configs/resnet152_imagenet.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    return imagenet("resnet152")
