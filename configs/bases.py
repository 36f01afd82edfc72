"""Settings that several recipes share. Not a recipe: ``from configs.bases import imagenet``."""

from train.config.loading import default_config

# Measured on the 50,000 training images of each.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def imagenet(model):
    """Return the classic 90 epochs on ImageNet, and the data of every ImageNet recipe.

    He et al. 2015 (arXiv:1512.03385, section 3.4) as torchvision's reference script trains its
    V1 weights: SGD, batch 256, learning rate 0.1, weight decay 1e-4 of all parameters,
    random-resized crops and flips. Differences: torchvision divides the rate by 10 at epochs 30
    and 60 of 90, here a third time at 80, as Goyal et al. 2017 (arXiv:1706.02677, section 5.1);
    torchvision computes in float32, here bfloat16. He et al. divided the rate when the error
    plateaued, cropped from images of 256 to 480 pixels, and augmented colors.

    The data are TFDS's imagenet2012; ``python -m train.prepare`` writes them.
    """
    config = default_config()
    config.model.name = model
    config.model.dtype = "bfloat16"
    config.dataset.name = "tfds:imagenet2012"
    config.dataset.eval_split = "validation"
    config.dataset.image_size = 224
    config.dataset.crop_pct = 0.875  # resize to 256 pixels, crop 224
    config.augment.rrc_scale = (0.08, 1.0)
    config.augment.hflip = True

    config.batch_size = 256
    config.num_epochs = 90
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_norm_and_bias = True
    config.schedule.name = "step"  # after 1/3, 2/3 and 8/9 of the run: at 30, 60 and 80
    config.schedule.learning_rate = 0.1
    config.schedule.base_batch_size = 256  # 0.4 for 1024 images
    return config


def strikes_back():
    """Return procedure A2 of ResNet strikes back (Wightman et al. 2021, arXiv:2110.00476, table 2).

    Settings that the table does not give are those of timm, which the authors used:
    zero-initialized residual branches, and RandAugment operations with probability 0.5.
    Differences: timm's RandAugment samples every magnitude around 7 of 10 and has more
    operations, here the magnitude is always 7 of 10, which is 21 of 30; timm resizes with bilinear
    or bicubic interpolation at random, and mixes all images of a batch in the same way.
    """
    config = imagenet("resnet50")
    config.model.zero_init_last = True
    config.dataset.crop_pct = 0.95
    config.dataset.interpolation = "bicubic"
    config.loss = "binary_cross_entropy"
    config.bce_target_threshold = 0.2  # every label of a mixed image counts in full
    config.augment.policy = "rand"
    config.augment.rand_magnitude = 21
    config.augment.rand_prob = 0.5
    config.augment.mixup = 0.1
    config.augment.cutmix = 1.0
    config.augment.repeated_aug = 3
    config.model.drop_path = 0.05

    config.batch_size = 2064  # the paper's 2048 is not a multiple of repeated_aug
    config.num_epochs = 300
    config.optimizer.name = "lamb"
    config.optimizer.eps = 1e-6
    config.optimizer.grad_clip_norm = 1.0  # as timm's LAMB
    config.optimizer.weight_decay = 0.02
    config.optimizer.decay_norm_and_bias = False
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 5e-3
    config.schedule.base_batch_size = 0
    config.schedule.warmup_epochs = 5
    return config


def cifar(model):
    """Return the CIFAR-10 training of He et al. 2015 (arXiv:1512.03385, section 4.2).

    64,000 steps of 128 images, learning rate 0.1 divided by 10 at steps 32,000 and 48,000,
    momentum 0.9, weight decay 1e-4, random crops of 32 pixels after padding by 4, and flips.
    Differences: the paper subtracts the mean of each pixel, here each channel is normalized by its
    mean and standard deviation; the paper pads with zeros after that, which is the mean color, here
    images are padded with black before it.

    The data are TFDS's cifar10; ``python -m train.prepare`` writes them.
    """
    config = default_config()
    config.model.name = model
    config.dataset.name = "tfds:cifar10"
    config.dataset.image_size = 32
    config.dataset.mean = CIFAR10_MEAN
    config.dataset.std = CIFAR10_STD
    config.augment.pad_crop = 4
    config.augment.hflip = True

    config.batch_size = 128
    config.num_steps = 64_000
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay_norm_and_bias = True
    config.schedule.name = "step"
    config.schedule.learning_rate = 0.1
    config.schedule.milestones = (1 / 2, 3 / 4)

    config.eval.every_epochs = 4
    config.checkpoint.every_epochs = 4
    return config


def voc(model):
    """Return the segmentation of Pascal VOC 2012; deeplabv3_resnet50_voc.py names the source."""
    config = default_config()
    config.task = "segmentation"
    config.model.name = model
    config.model.aux_head = True
    config.aux_loss_weight = 0.4
    config.init_from = "resnet50.tv_in1k"
    config.dataset.name = "segmentation_folder"
    config.dataset.eval_split = "val"
    config.dataset.image_size = 512  # the largest pictures have 500
    config.augment.scale_range = (0.5, 2.0)
    config.augment.hflip = True
    config.augment.color_jitter = (0.125, 0.5, 0.5, 0.1)

    config.batch_size = 16
    config.num_steps = 20_000
    config.sync_batch_norm = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_norm_and_bias = True
    config.schedule.name = "polynomial"
    config.schedule.power = 0.9
    config.schedule.learning_rate = 0.01
    config.schedule.end_lr_fraction = 0.01
    return config
