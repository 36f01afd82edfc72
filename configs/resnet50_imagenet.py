"""ResNet-50 on ImageNet: the classic 90 epochs.

Source: He et al. 2015 (arXiv:1512.03385), as torchvision trains it; configs/bases.py says what
differs. The stride is in the 3×3, as torchvision has it; resnet50_v1 has it where the paper
does. Goyal et al. report 76.4 % at batch 256 with blocks that start as their shortcuts, Nesterov's
momentum and norms that don't decay, and 76.3 % at 8,192 with a warm-up, too:
--config.model.zero_init_last=True --config.schedule.warmup_epochs=5, advisable from 1,024 on.
Reports: torchvision's V1 weights 76.130 % top-1; He et al. 22.85 % top-1 error of ten crops.
Ours: not measured.
Assumes: one GPU of 40 GB, or several.

    python -m train.main --config configs/resnet50_imagenet.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    return imagenet("resnet50")
