"""Configurations: recipes, overrides and error messages."""

import sys

import pytest

from train.config import loading
from train.config.loading import KEYS, check_config, default_config, load_config
from train.config.other_names import ANSWERS, OTHER_NAMES
from train.config.task_defaults import set_task_defaults
from train.runtime.errors import UsageError


@pytest.fixture
def recipe(tmp_path):
    def write(body):
        path = tmp_path / "recipe.py"
        path.write_text(
            "from train.config.loading import default_config\n"
            "def get_config():\n"
            "    config = default_config()\n"
            f"    {body}\n"
            "    return config\n"
        )
        return str(path)

    return write


def test_overrides_are_parsed_by_the_type_of_the_key(recipe):
    overrides = [
        ("batch_size", "48"),
        ("num_epochs", "7"),
        ("optimizer.nesterov", "true"),
        ("model.name", "resnet18"),
        ("schedule.milestone_epochs", "1.5,3"),
        ("augment.rrc_scale", "0.5,1"),
        ("dataset.mean", "(0, 0.5, 1)"),
    ]
    config = load_config(recipe("config.batch_size = 32"), overrides)
    assert config.batch_size == 48
    assert config.num_epochs == 7
    assert config.optimizer.nesterov is True
    assert config.model.name == "resnet18"
    assert config.schedule.milestone_epochs == (1.5, 3)
    assert config.dataset.mean == (0, 0.5, 1)
    config = load_config(recipe("pass"), [("schedule.milestone_epochs", "30")])
    assert config.schedule.milestone_epochs == (30,)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        (
            "optimzer.name",
            "adam",
            "no key config.optimzer.name.*config.optimizer.name.*Weight decay is",
        ),
        ("learning_rate", "1", "did you mean config.schedule.learning_rate"),
        ("schedule.lr", "1", "did you mean config.schedule.learning_rate"),
        ("lr", "1", "did you mean config.schedule.learning_rate"),
        ("wd", "1", "did you mean config.optimizer.weight_decay"),
        ("optimizer.wd", "1", "did you mean config.optimizer.weight_decay"),
        ("bs", "1", "did you mean config.batch_size"),
        ("epochs", "1", "did you mean config.num_epochs"),
        ("arch", "resnet18", "did you mean config.model.name"),
        ("model.arch", "resnet18", "did you mean config.model.name"),
        ("accumulate", "2", "did you mean config.grad_accum_steps"),
        ("data.threads", "2", "did you mean config.loader.threads"),
        ("augment.flip", "1", "did you mean config.augment.hflip"),
        ("schedule.step_shares", "1", "did you mean config.schedule.milestones"),
        ("optimizer.decay", "coupled", "did you mean config.optimizer.name.*Weight decay is"),
        ("LR", "1", "did you mean config.schedule.learning_rate"),
        ("batch-size", "1", "did you mean config.batch_size"),
        ("amp", "True", "did you mean config.model.dtype"),
        ("mixup_alpha", "0.2", "did you mean config.augment.mixup\\?"),
        ("optimizer", "adamw", "did you mean config.optimizer.name"),
        ("optimizer.beta_1", "0.9", "did you mean config.optimizer.b1"),
        ("log.interval", "5", "did you mean config.log.every_steps"),
        ("gpus", "2", "config.gpus; all devices are used; .*CUDA_VISIBLE_DEVICES"),
        ("workdir", "x", "config.workdir; use the flag --workdir DIR"),
        ("resume", "True", "config.resume; the same command .* resumes"),
        ("in_chans", "1", "did you mean config.dataset.channels"),
        ("ignore_index", "0", "did you mean config.dataset.ignore_values"),
        ("crop_size", "64", "dataset.image_size is .* config.augment.crop_size is"),
        ("mask_dir", "x", "masks lie in config.dataset.data_dir, in masks beside images"),
        ("qqqqqqqq", "1", "--help lists"),
        ("batch_size", "big", "config.batch_size must be an integer, not 'big'.*Global batch"),
        ("batch_size", "2.5", "integer, not 2.5"),
        ("batch_size", "True", "integer"),
        ("batch_size", "0", "at least 1, not 0"),
        ("label_smoothing", "1", "below 1"),
        ("num_epochs", "nan", "must be a number"),
        ("optimizer.nesterov", "maybe", "True or False, not 'maybe'"),
        ("optimizer.name", "adm", "'sgd' or 'adam'"),
        ("dataset.mean", "1,2", "a number for each of the 3 dataset.channels, or one for all"),
        ("dataset.image_size", "24,40,3", "an integer, or two such as 224,224, not"),
        ("dataset.image_size", "24,0", "at least 1"),
        ("dataset.bits", "12", "must be 8 or 16, not 12"),
        ("dataset.channels", "17", "at most 16"),
        ("augment.rrc_scale", "1,0.1", "in ascending order"),
        ("augment.rrc_scale", "0.5,1.5", "at most 1"),
        ("schedule.learning_rate", "1e999", "must be a number"),
        ("seed", str(2**32), "below"),
        ("num_steps", "99999999999999999999", "below"),
        ("dataset.image_size", "1000000", "at most 4096"),
        ("schedule.milestone_epochs", "5,1", "in ascending order"),
    ],
)
def test_invalid_override_is_a_one_line_error(recipe, key, text, message):
    with pytest.raises(UsageError, match=message) as error:
        load_config(recipe("pass"), [(key, text)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("config.batch_sise = 3", "no key config.batch_sise.*config.batch_size"),
        ("config.optimzer.name = 'sgd'", "line 4.*no key config.optimzer.*config.optimizer.name"),
        ("config.batch_size = 'x'", "config.batch_size must be an integer, not 'x'"),
        ("config.schedule = 3", "no key config.schedule"),
        ("1 / 0", "line 4: ZeroDivisionError"),
        ("raise SystemExit(7)", "line 4: SystemExit: 7"),
        ("return 3", "must return an ml_collections ConfigDict, not int"),
        ("del config.seed", "config.seed is missing"),
    ],
)
def test_invalid_recipe_is_a_one_line_error(recipe, body, message):
    with pytest.raises(UsageError, match=message) as error:
        load_config(recipe(body))
    assert "\n" not in str(error.value)


def test_error_for_a_missing_recipe_lists_similar_files(recipe):
    path = recipe("pass")
    with pytest.raises(UsageError, match=r"no config file.*has recipe\.py"):
        load_config(path.replace("recipe.py", "recipy.py"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet20_digit", "no recipe.*did you mean resnet20_digits( or .*)?\\?$"),
        ("qqqqqqqq", "the recipes are .*resnet20_digits, .*wrn28_10_cifar100$"),
        ("bases", "no recipe 'bases'"),
        ("mine", r"did you mean the file mine\.py"),
        ("resnet20_digits.py", r"no config file.*did you mean the recipe resnet20_digits\?"),
        ("configs/resnet20_digits.py", "did you mean the recipe resnet20_digits"),
        ("elsewhere/mine.py", "no folder 'elsewhere'"),
    ],
)
def test_error_for_a_missing_recipe_names_the_right_one(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    with pytest.raises(UsageError, match=message):
        load_config(name)


def test_a_recipe_may_import_a_module_beside_it(recipe, tmp_path):
    (tmp_path / "my_recipe_parts.py").write_text("SEED = 7")
    search_path = list(sys.path)
    config = load_config(recipe("from my_recipe_parts import SEED; config.seed = SEED"))
    assert config.seed == 7
    assert sys.path == search_path


def test_json_round_trip(tmp_path):
    config = default_config()
    config.schedule.milestone_epochs = (1, 2.5)
    config.model.name = "resnet18"
    set_task_defaults(config)
    assert config.eval.metric == "top1"
    (tmp_path / "config.json").write_text(loading.to_json(config))
    assert loading.read_json_file(tmp_path / "config.json").to_dict() == config.to_dict()


def test_differences_exclude_neutral_keys():
    one, other = default_config(), default_config()
    other.seed = 5
    other.dataset.data_dir = "/elsewhere"
    other.checkpoint.max_to_keep = 9
    assert loading.differences(one, other) == [("seed", 0, 5)]


def test_other_names_map_to_existing_keys():
    assert set(OTHER_NAMES.values()) <= set(KEYS)
    assert not set(OTHER_NAMES) & set(KEYS)
    assert not set(ANSWERS) & (set(OTHER_NAMES) | set(KEYS))


def test_every_key_has_a_meaning_and_a_valid_default():
    loading.check_config(default_config())
    for name, key in KEYS.items():
        assert key.meaning.endswith("."), name
        assert name in loading.describe()


def test_one_mean_for_all_channels_is_explained():
    config = default_config()
    config.dataset.mean = 0.5
    with pytest.raises(UsageError, match=r"not 0\.5 .*in Python: \(0\.5,\)"):
        check_config(config)
