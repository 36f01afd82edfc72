"""The trainer, and what recipes and notebooks extend it with."""

import importlib
import sys
from typing import Any

if "multiprocessing" in sys.modules:  # perhaps in a worker, before it imports anything large
    from train.runtime.worker import exit_with_run

    exit_with_run()

# Imported on first use, since importing JAX takes a second.
_MODULES = {
    "Callback": "engine.callbacks",
    "DataSource": "data.source",
    "Interrupted": "loop",
    "Logger": "reporting.loggers.logger",
    "RunError": "runtime.errors",
    "UsageError": "runtime.errors",
    "arrays_source": "data.sources.arrays",
    "declare_key": "config.own_keys",
    "default_config": "config.loading",
    "fit": "fitting",
    "huggingface_source": "data.sources.huggingface",
    "load_config": "config.loading",
    "register_augmentation": "data.registries",
    "register_logger": "config.registries",
    "register_loss": "config.registries",
    "register_metric": "config.registries",
    "register_optimizer": "config.registries",
    "register_schedule": "config.registries",
    "register_source": "data.registries",
    "register_task": "config.registries",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"train.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
