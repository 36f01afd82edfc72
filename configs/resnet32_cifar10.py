"""ResNet-32 on CIFAR-10: the paper's recipe.

Source: He et al. 2015 (arXiv:1512.03385, section 4.2); configs/bases.py lists the differences.
Reports: He et al. 7.51 % error. Ours: not measured.
Assumes: any GPU.

    python -m train.main --config configs/resnet32_cifar10.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import cifar


def get_config():
    return cifar("resnet32")
