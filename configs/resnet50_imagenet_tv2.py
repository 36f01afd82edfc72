"""ResNet-50 on ImageNet: the 600 epochs of torchvision's V2 weights.

Source: torchvision's reference script, as described in "How to train state-of-the-art
models using TorchVision's latest primitives" (2021). Differs: the moving average is updated
every step, not every 32nd; no weight decay of any bias, where torchvision excludes only those of
norms; mixup or CutMix is chosen per pair of images, not per batch; the warm-up rises per step, not
per epoch; bfloat16.
Reports: torchvision's V2 weights 80.858 % top-1. Ours: not measured.
Assumes: 8 GPUs of 24 GB; on one of 40 GB --config.grad_accum_steps=4.

    python -m train.main --config configs/resnet50_imagenet_tv2.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    config = imagenet("resnet50")
    config.dataset.train_sizes = (176,)
    config.dataset.crop_pct = 224 / 232
    config.label_smoothing = 0.1
    config.augment.policy = "trivial"
    config.augment.random_erasing = 0.1
    config.augment.mixup = 0.2
    config.augment.cutmix = 1.0
    config.augment.repeated_aug = 4
    # torchvision's decay is 1 - 2e-5 * 1024 * 32 / 600 every 32 steps; this is its 32nd root.
    config.ema.decay = 0.999966

    config.batch_size = 1024
    config.num_epochs = 600
    config.optimizer.weight_decay = 2e-5
    config.optimizer.decay_norm_and_bias = False
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.5
    config.schedule.base_batch_size = 0
    config.schedule.warmup_epochs = 5
    return config
