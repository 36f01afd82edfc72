"""What several recipes share. Not a recipe itself: ``from configs.bases import imagenet``."""

from train.config.loading import default_config

# Of CIFAR's 50,000 training images each.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def imagenet(model):
    """The classic 90 epochs on ImageNet, and the data of every ImageNet recipe.

    He et al. 2015 (arXiv:1512.03385, section 3.4) as torchvision's reference script trains its
    V1 weights: SGD, batch 256, rate 0.1, decay 1e-4 of everything, random-resized crops and
    flips. Three things differ: torchvision divides the rate by 10 at 30 and 60 of 90 epochs,
    here a third time at 80, as Goyal et al. 2017 (arXiv:1706.02677, section 5.1); it computes
    in float32, here in bfloat16; He et al. divided the rate where the error stood still, cropped
    from images of 256 to 480 pixels, and changed their colours.

    The data are TFDS's imagenet2012; ``python -m train.prepare`` writes them.
    """
    config = default_config()
    config.model.name = model
    config.model.dtype = "bfloat16"
    config.dataset.name = "tfds:imagenet2012"
    config.dataset.eval_split = "validation"
    config.dataset.image_size = 224
    config.dataset.crop_pct = 0.875  # 256 pixels, of which 224 are cut
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
    """ResNet strikes back (Wightman et al. 2021, arXiv:2110.00476, table 2), procedure A2.

    What the table leaves open is as in timm, which it was made with: blocks that start as their
    shortcuts, operations of RandAugment that are done half of the time. Timm's RandAugment draws
    each strength anew around 7 of 10 and knows more operations; here it is 7 of 10, which is 21
    of 30, each time. It resizes by bilinear or bicubic at random, and mixes whole batches alike.
    """
    config = imagenet("resnet50")
    config.model.zero_init_last = True
    config.dataset.crop_pct = 0.95
    config.dataset.interpolation = "bicubic"
    config.loss = "binary_cross_entropy"
    config.bce_target_threshold = 0.2  # every label of a mixed image is wholly there
    config.augment.policy = "rand"
    config.augment.rand_magnitude = 21
    config.augment.rand_prob = 0.5
    config.augment.mixup = 0.1
    config.augment.cutmix = 1.0
    config.augment.repeated_aug = 3
    config.model.drop_path = 0.05

    config.batch_size = 2064  # the paper's 2048 is no multiple of the 3 repeats
    config.num_epochs = 300
    config.optimizer.name = "lamb"
    config.optimizer.eps = 1e-6
    config.optimizer.grad_clip_norm = 1.0  # as LAMB does in timm
    config.optimizer.weight_decay = 0.02
    config.optimizer.decay_norm_and_bias = False
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 5e-3
    config.schedule.base_batch_size = 0
    config.schedule.warmup_epochs = 5
    return config


def cifar(model):
    """He et al. 2015 (arXiv:1512.03385, section 4.2) on CIFAR-10.

    64,000 steps of 128 images, rate 0.1 divided by 10 at 32,000 and 48,000, momentum 0.9, decay
    1e-4, 4 pixels padded, a random crop of 32 and flips. Two things differ: the paper subtracts
    the mean of each pixel, here each channel is normalised by its mean and deviation; and pads
    with zeros after that, which is the mean colour, here with black before it.

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
