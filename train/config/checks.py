"""Validation of keys and values, with the right key for a wrong one."""

import difflib
import math
from typing import Any

from train.config.keys import KEYS
from train.runtime.errors import UsageError

# Former names of keys, and the names that other libraries have for them, as NAME=KEY. The group
# stands before both.
_OTHER_NAMES = {
    "": """
        accumulate=grad_accum_steps arch=model.name architecture=model.name
        batch_norm=sync_batch_norm bs=batch_size clip_grad=optimizer.grad_clip_norm
        data=dataset.data_dir data.max_bad_fraction=loader.max_corrupt_fraction
        data.resident=loader.cache_on_device data.resident_gib=loader.device_cache_gib
        data.steps_per_call=steps_per_execution data.threads=loader.threads
        data.workers=loader.workers data_path=dataset.data_dir drop=model.dropout epochs=num_epochs
        img_size=dataset.image_size input_size=dataset.image_size
        loss_threshold=bce_target_threshold lr=schedule.learning_rate model=model.name
        num_workers=loader.workers opt=optimizer.name pretrained=init_from resume=init_from
        sched=schedule.name smoothing=label_smoothing steps=num_steps wd=optimizer.weight_decay
        workers=loader.workers
    """,
    "augment.": """
        crop_aspect=rrc_ratio crop_scale=rrc_scale erasing=random_erasing
        erasing_area=random_erasing_scale erasing_aspect=random_erasing_ratio flip=hflip
        mix_probability=mixup_prob mix_switch=mixup_switch_prob rand_layers=rand_num_ops
        rand_probability=rand_prob repeats=repeated_aug vertical_flip=vflip
    """,
    "checkpoint.": "keep=max_to_keep",
    "dataset.": """
        crop_ratio=crop_pct held_out=val_fraction held_out_seed=val_seed
        size_epochs=train_size_epochs
    """,
    "eval.": "ema=use_ema",
    "optimizer.": """
        backbone_rate=backbone_lr_scale beta1=b1 beta2=b2 clip_norm=grad_clip_norm decay=name
        decay_norms=decay_norm_and_bias epsilon=eps
    """,
    "schedule.": """
        end_rate=end_lr_fraction one_cycle_rise=pct_start scale_batch=base_batch_size
        step_epochs=milestone_epochs step_factor=gamma step_shares=milestones
        step_steps=milestone_steps warmup_most=max_warmup_fraction
    """,
}
OTHER_NAMES = {
    group + name: group + key
    for group, names in _OTHER_NAMES.items()
    for name, key in (pair.split("=") for pair in names.split())
}

GROUPS = tuple(dict.fromkeys(key.rpartition(".")[0] for key in KEYS if "." in key))


def check_value(name: str, value: Any) -> None:
    """Raise UsageError if ``value`` is not valid for the key ``name``."""
    key = KEYS[name]

    def error(expected: str) -> UsageError:
        return UsageError(f"config.{name} must be {expected}, not {value!r} ({key.meaning})")

    if isinstance(key.default, tuple):
        whole = key.example and all(is_a(int, v) for v in key.example)
        kind, numbers = (int, "integers") if whole else (float, "numbers")
        valid = isinstance(value, tuple) and all(is_a(kind, v) for v in value)
        if not valid or not (key.example or len(value) == len(key.default)):
            example = ",".join(str(v) for v in key.example or key.default)
            count = "" if key.example else f"{len(key.default)} "
            raise error(f"{count}{numbers} such as {example}")
    elif not is_a(type(key.default), value):
        raise error(_TYPE_NAMES[type(key.default)])

    if key.choices and value not in key.choices:
        raise error(" or ".join(repr(choice) for choice in key.choices))
    if key.automatic and -1 < value < 0:
        raise error("-1, 0 or more")
    for number in value if isinstance(value, tuple) else (value,):
        if key.minimum is not None and number < key.minimum:
            raise error(f"at least {key.minimum:g}")
        if key.below is not None and number >= key.below:
            raise error(f"below {key.below:g}")
        if key.maximum is not None and number > key.maximum:
            raise error(f"at most {key.maximum:g}")
    if key.ascending and list(value) != sorted(value):
        raise error("in ascending order")


_TYPE_NAMES = {bool: "True or False", int: "an integer", float: "a number", str: "text"}


def is_a(kind: type, value: Any) -> bool:
    """Return whether ``value`` is of ``kind``: an int is a float, a bool is neither."""
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def unknown_key(name: str) -> str:
    """Return the error message for a key that does not exist, with the key probably meant."""
    group, _, leaf = name.rpartition(".")
    groups = difflib.get_close_matches(group or leaf, GROUPS, n=1, cutoff=0.7)
    in_group = [key for key in KEYS if groups and key.startswith(f"{groups[0]}.")]
    candidates = (
        [OTHER_NAMES.get(name)],
        difflib.get_close_matches(name, KEYS, n=1, cutoff=0.85),
        # The right leaf in the wrong group or in none, such as "learning_rate".
        [key for key in KEYS if key.rpartition(".")[2] == leaf],
        [OTHER_NAMES.get(leaf)],
        difflib.get_close_matches(name, in_group, n=1, cutoff=0.5) if group else in_group,
        difflib.get_close_matches(name, KEYS, n=1, cutoff=0.5),
    )
    key = next((key for keys in candidates for key in keys if key), None)
    if key is None:
        return f"there is no key config.{name}; python -m train.main --help lists the keys"
    return f"there is no key config.{name}; did you mean config.{key}? ({KEYS[key].meaning})"
