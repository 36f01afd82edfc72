"""Recipes, one per file; ``bases`` has the settings that several of them share."""
