"""One named network for every combination of fields."""

import dataclasses

from flax_resnet import ResNet, create_model
from flax_resnet.variants import VARIANTS

WIDTHS = ("groups", "width", "width_multiplier", "stem_width")


def combination(name):
    """Return the fields that differ from their defaults; of widths only that they do."""
    model = create_model(name)
    fields = [f for f in dataclasses.fields(ResNet) if f.name not in ("parent", "name")]
    values = {field.name: getattr(model, field.name) for field in fields}
    del values["stage_sizes"], values["num_classes"]
    defaults = {field.name: field.default for field in fields}
    return frozenset(
        (field, "other" if field in WIDTHS else value)
        for field, value in values.items()
        if value != defaults[field]
    )


def representatives():
    """Return the first name of each combination, in the order of the table."""
    first = {}
    for name in VARIANTS:
        first.setdefault(combination(name), name)
    return list(first.values())
