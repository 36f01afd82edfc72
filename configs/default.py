"""Every key at its default, as a starting point for a new recipe.

    python -m train.main --config configs/default.py --config.KEY=VALUE …

The reference of all keys, with their meanings and valid values, is docs/configuration.md on the
documentation site, or `python -m train.main --help`; train/config/keys.py defines them.
"""

from train.config.loading import default_config


def get_config():
    return default_config()
