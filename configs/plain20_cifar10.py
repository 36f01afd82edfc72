"""The 20-layer network without shortcuts on CIFAR-10, to compare with resnet20_cifar10.

Source: He et al. 2015 (arXiv:1512.03385, section 4.2); configs/bases.py lists the differences.
Reports: He et al. plot its error in figure 6, without a number. Ours: not measured.
Assumes: any GPU.

    python -m train.main --config configs/plain20_cifar10.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import cifar


def get_config():
    return cifar("plain20")
