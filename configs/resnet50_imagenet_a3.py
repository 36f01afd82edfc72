"""ResNet-50 on ImageNet: ResNet strikes back, A3: 100 epochs at 160 pixels, the cheapest of three.

Source: Wightman et al. 2021 (arXiv:2110.00476, table 2). Differs as listed in
configs/bases.py: a constant RandAugment magnitude.
Reports: timm's weights 78.05 % top-1 at 224 pixels. Ours: not measured.
Assumes: 8 GPUs of 40 GB; on one --config.grad_accum_steps=4.

    python -m train.main --config configs/resnet50_imagenet_a3.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import strikes_back


def get_config():
    config = strikes_back()
    config.num_epochs = 100
    config.batch_size = 2048
    config.dataset.train_sizes = (160,)
    config.augment.rand_magnitude = 18
    config.augment.repeated_aug = 1
    config.model.drop_path = 0.0
    config.schedule.learning_rate = 8e-3
    return config
