"""ResNet-18 on cats and dogs: a tutorial's recipe, which resnet18_cats_vs_dogs_better improves.

Source: a PyTorch tutorial with its own ResNet-18, which has a 3×3 stem and no pool at 224
pixels; SGD at 0.01 without momentum, batch 8. Differs: saves every epoch, not every 100 steps,
and evaluates on the test images with running statistics.
Reports: 93.23 % after 10 epochs. Ours: not measured.
Assumes: one GPU of 8 GB. 27 billion multiply-adds per image, fifteen times those of the
usual ResNet-18.

    python -m train.main --config configs/resnet18_cats_vs_dogs.py \\
        --config.dataset.data_dir=DIR

DIR has train/cat/…, train/dog/…, test/cat/… and test/dog/…. From TFDS, instead of DIR:

    --config.dataset.name=tfds:cats_vs_dogs --config.dataset.train_split='train[:80%]'
    --config.dataset.eval_split='train[80%:]'
"""

from train.config.loading import default_config


def get_config():
    config = default_config()
    config.model.name = "resnet18"
    config.model.stem = "cifar"
    config.dataset.name = "folder"
    config.dataset.image_size = 224
    config.dataset.crop_pct = 0.875  # resize to 256 pixels, crop 224

    config.batch_size = 8
    config.num_epochs = 10
    config.optimizer.momentum = 0.0
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "constant"
    config.schedule.learning_rate = 0.01
    return config
