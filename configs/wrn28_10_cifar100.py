"""WRN-28-10, a wide residual network, on CIFAR-100.

Source: Zagoruyko and Komodakis 2016 (arXiv:1605.07146, section 3). Differs: images are padded
with black before the crop, in the paper by reflection; normalized with CIFAR-100's own mean and
standard deviation, in the authors' code with CIFAR-10's.
Reports: 19.25 % error, and 18.85 % with --config.model.block_dropout=0.3. Ours: not measured.
Assumes: one GPU of 16 GB.

    python -m train.main --config configs/wrn28_10_cifar100.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import CIFAR100_MEAN, CIFAR100_STD, cifar


def get_config():
    config = cifar("wrn28_10")
    config.dataset.name = "tfds:cifar100"
    config.dataset.mean = CIFAR100_MEAN
    config.dataset.std = CIFAR100_STD

    config.num_steps = 0
    config.num_epochs = 200
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.milestones = (0.3, 0.6, 0.8)  # after 60, 120 and 160 epochs
    config.schedule.gamma = 0.2
    return config
