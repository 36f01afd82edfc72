"""Recipes, one a file; ``bases`` is what several of them share."""
