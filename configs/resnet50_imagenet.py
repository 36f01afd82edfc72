"""ResNet-50 on ImageNet: the classic 90 epochs.

Source: He et al. 2015 (arXiv:1512.03385), as torchvision trains it; configs/bases.py lists
the differences. The stride is in the 3×3 convolution as in torchvision; resnet50_v1 has it in
the first 1×1 as in the paper. Goyal et al. report 76.4 % at batch 256 with zero-initialized
residual branches, Nesterov momentum and no weight decay of norms, and 76.3 % at 8,192 with a
warm-up in addition: --config.model.zero_init_last=True --config.schedule.warmup_epochs=5, advisable
from a batch size of 1,024 on.
Reports: torchvision's V1 weights 76.130 % top-1; He et al. 22.85 % top-1 error with ten crops.
Ours: not measured.
Assumes: one GPU of 40 GB, or several.

    python -m train.main --config configs/resnet50_imagenet.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    return imagenet("resnet50")
