"""The type of configurations, so that one module imports ml_collections."""

from ml_collections import ConfigDict as ConfigDict
