"""ResNet-50 on ImageNet: ResNet strikes back, A2: 300 epochs, between the two others.

Source: Wightman et al. 2021 (arXiv:2110.00476, table 2). Differs as listed in
configs/bases.py: batch 2064 instead of 2048, and a constant RandAugment magnitude.
Reports: timm's weights 79.83 % top-1 at 224 pixels. Ours: not measured.
Assumes: 8 GPUs of 40 GB; on one --config.grad_accum_steps=6.

    python -m train.main --config configs/resnet50_imagenet_a2.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import strikes_back


def get_config():
    return strikes_back()
