"""ResNet-110 on CIFAR-10: the paper's recipe.

Source: He et al. 2015 (arXiv:1512.03385, section 4.2); configs/bases.py lists the differences. The
paper warms up at 0.01 until the training error is below 80 %, about 400 steps; here the rate
rises linearly over 400.
Reports: He et al. 6.43 % error (the best of five; 6.61 on average). Ours: not measured.
Assumes: any GPU.

    python -m train.main --config configs/resnet110_cifar10.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import cifar


def get_config():
    config = cifar("resnet110")
    config.schedule.warmup_steps = 400
    return config
