"""Pre-activation ResNet-110 on CIFAR-10.

Source: He et al. 2016 (arXiv:1603.05027, section 4 and appendix); configs/bases.py lists
the differences. The paper warms up at 0.01 for 400 steps; here the rate rises linearly over 400.
Reports: He et al. 6.37 % error. Ours: not measured.
Assumes: any GPU.

    python -m train.main --config configs/resnet110v2_cifar10.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import cifar


def get_config():
    config = cifar("resnet110v2")
    config.schedule.warmup_steps = 400
    return config
