"""ResNet-50 on ImageNet in 16 epochs, at 160 pixels and then at 192.

Source: ffcv's rn50_16_epochs. Differs: no blur before the strided convolutions; no
averaging over mirror images in evaluation; batch 1024 at a quarter of the rate for 4096; no weight
decay of biases and norms, where ffcv excludes only the norms inside blocks; bfloat16.
Reports: ffcv 73.8 % top-1; 78.4 % in 88 epochs. Ours: not measured.
Assumes: one GPU of 40 GB, or several, and images prepared with --resize 400, or enough cores to
decode them.

    python -m train.main --config configs/resnet50_imagenet_fast.py \\
        --config.dataset.data_dir=DIR
"""

from configs.bases import imagenet


def get_config():
    config = imagenet("resnet50")
    config.dataset.image_size = 256  # in evaluation
    config.dataset.train_sizes = (160, 192)
    config.dataset.train_size_epochs = (0, 12)
    config.label_smoothing = 0.1

    config.batch_size = 1024
    config.num_epochs = 16
    config.optimizer.decay_norm_and_bias = False
    config.schedule.name = "polynomial"
    config.schedule.learning_rate = 1.7
    config.schedule.base_batch_size = 4096
    config.schedule.warmup_epochs = 2
    return config
