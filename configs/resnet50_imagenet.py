"""ResNet-50 on ImageNet: the classic recipe.

90 epochs of SGD at batch 1024 with linear warm-up (Goyal et al. 2017, arXiv:1706.02677),
label smoothing and a cosine schedule. With step decay instead of the cosine, torchvision
reports 76.13 % and Goyal et al. 76.4 %; ours: not measured. Assumes 8 GPUs or TPU cores.

    python -m train.main --config configs/resnet50_imagenet.py \\
        --config.dataset.data_dir=/data/tfds

The data are TFDS's imagenet2012, prepared once as ArrayRecord; the command says how.
"""

from train.config import default_config


def get_config():
    config = default_config()
    config.model.name = "resnet50"
    config.model.dtype = "bfloat16"
    config.model.zero_init_last = True
    config.dataset.name = "tfds:imagenet2012"
    config.dataset.eval_split = "validation"
    config.dataset.image_size = 224
    config.dataset.crop_ratio = 0.875  # 256 pixels, of which 224 are cut
    config.augment.crop_scale = (0.08, 1.0)
    config.augment.flip = True

    config.batch_size = 1024
    config.num_epochs = 90
    config.label_smoothing = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.4  # 0.1 for every 256 images
    config.schedule.warmup_epochs = 5
    return config
