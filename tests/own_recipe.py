"""A recipe with own parts, for tests."""


def write_recipe(folder, body, **modules):
    """Write a recipe that registers own parts, and modules beside it; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    (folder / "recipe.py").write_text(
        "from train import declare_key, default_config, register_loss\n"
        f"{body}\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.loss = 'own'\n"
        "    return config\n"
    )
    return str(folder / "recipe.py")
