"""The defaults of configs/resnet50_folder_finetune.py: what each costs or gives.

    python benchmarks/studies/finetune_recipe.py --out FILE [--sets cracks …] [--variants now …]
        [--epochs 20] [--seeds 3]
    python benchmarks/studies/finetune_recipe.py --table FILE

No pretrained weights are downloaded: for every set of folder_recipe.py, a small network with
bottlenecks learns to classify the images of the three other sets, and is then fine-tuned on this
one with the recipe. FILE, its table and the seeds are those of folder_recipe.py.
"""

import contextlib
import io
import itertools
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import folder_recipe
import numpy as np
from folder_recipe import CONDITIONS, SETS, SMALL, HostPrograms

from train import arrays_source, load_config
from train.loop import train
from train.runtime import compilation_cache
from train.runtime.signals import StopRequest

SIZE = SMALL["size"]
PRETRAINING_EPOCHS = 24
SMALL_NET = {
    "model.width": SMALL["width"],
    "model.stage_sizes": "1,1,1,1",
    "dataset.image_size": SIZE,
    "eval.every_epochs": 0.0,
    "checkpoint.every_epochs": 0.0,
    "eval.batch_size": 100,
}
NO_CROP = {"augment.rrc_scale": "1,1"}
VARIANTS = {
    "now": {},
    "old": {"augment.rrc_scale": "0.25,1", "label_smoothing": 0.1},
    "crop 0.25": {"augment.rrc_scale": "0.25,1"},
    "no crop": NO_CROP,
    "crop_pct 1": {"dataset.crop_pct": 1.0},
    "no crop, crop_pct 1": NO_CROP | {"dataset.crop_pct": 1.0},
    "smoothing": {"label_smoothing": 0.1},
    "one cycle": {"schedule.name": "one_cycle", "schedule.warmup_epochs": 0.0},
    "rate 0.02": {"schedule.learning_rate": 0.02},
    "rate 0.1": {"schedule.learning_rate": 0.1},
    "backbone at 0.3": {"optimizer.backbone_lr_scale": 0.3},
    "backbone at 1": {"optimizer.backbone_lr_scale": 1.0},
    "nothing frozen": {"freeze": ""},
    "head only": {"freeze": "backbone"},
    "from scratch": {"init_from": "", "freeze": "", "optimizer.backbone_lr_scale": 1.0},
}


def configuration(recipe, keys):
    """Return a recipe's configuration for a small network."""
    values = [(key, str(value)) for key, value in (SMALL_NET | keys).items()]
    return load_config(recipe, values)


def pretrain(excluded, seed, workdir):
    """Train on all sets but one."""
    images, labels, names = [], [], []
    for name in SETS:
        if name != excluded:
            source, _ = folder_recipe.pictures(name, SIZE, seed)
            pairs = [source.decode(number) for number in range(len(source))]
            images += [cv2.resize(image, (SIZE * 5 // 4,) * 2) for image, _ in pairs]
            labels += [len(names) + label for _, label in pairs]
            names += source.class_names
    source = arrays_source(np.stack(images), np.array(labels), names, "train")
    keys = {"model.name": "resnet50", "num_epochs": PRETRAINING_EPOCHS, "seed": seed}
    keys |= NO_CROP | {"schedule.learning_rate": 0.05}
    with contextlib.redirect_stdout(io.StringIO()):
        train(configuration("resnet18_folder", keys), workdir, StopRequest(), (source, source))


def main():
    """Fine-tune every variant on every set with every seed, or print the table of earlier runs."""
    flags = folder_recipe.make_parser(__doc__, VARIANTS, epochs=20).parse_args()
    if flags.table:
        return folder_recipe.print_table(flags.table)
    done = {tuple(row[key] for key in CONDITIONS) for row in folder_recipe.finished(flags.out)}
    compilation_cache.configure()
    programs = HostPrograms()
    for seed, name in itertools.product(range(flags.seeds), flags.sets):
        with tempfile.TemporaryDirectory() as workdir:
            for variant in flags.variants:
                sizes = (*SMALL.values(), 1, flags.epochs)
                conditions = (*sizes, variant, name, seed)
                if conditions in done:
                    continue
                if not os.listdir(workdir):
                    pretrain(name, seed, workdir)
                keys = {"init_from": workdir, "num_epochs": flags.epochs, "seed": seed}
                config = configuration("resnet50_folder_finetune", keys | VARIANTS[variant])
                sources = folder_recipe.pictures(name, SIZE, seed)
                result = folder_recipe.train(config, sources, programs)
                folder_recipe.record(flags.out, conditions, result)


if __name__ == "__main__":
    main()
