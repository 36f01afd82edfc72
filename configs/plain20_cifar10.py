"""The 20-layer net without shortcuts on CIFAR-10, which resnet20_cifar10 is better than.

Source: He et al. 2015 (arXiv:1512.03385, section 4.2); configs/bases.py says what differs.
Reports: He et al. draw its error in figure 6 and give no number. Ours: not measured.
Assumes: any GPU.

    python -m train.main --config configs/plain20_cifar10.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import cifar


def get_config():
    return cifar("plain20")
