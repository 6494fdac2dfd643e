import pytest
from absl import flags
from ml_collections import ConfigDict

from configs import command_line
from configs.common import (
    PATHS,
    ConfigError,
    add_duration,
    expand_paths,
    expanded,
    keep_overridden_unit,
    to_steps,
)

pytestmark = pytest.mark.quick

ALEXNET = "--config=configs/alexnet.py"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    from tests.conftest import ROOT

    monkeypatch.chdir(ROOT)


def parse(*arguments):
    return command_line.parse(["main.py", *arguments], flags.FlagValues())


def test_overrides_of_every_kind():
    parsed = parse(
        f"{ALEXNET}:digits",
        "--config.batch_size=32",
        "--config.optimizer.weight_decay=1e-3",
        "--config.model.lrn=False",
        "--noconfig.data.augment.flip",
        "--config.model.without=conv3,fc7",
        "--config.optimizer.drop_epochs=(3, 5)",
        "--config.data.augment.scale_range=(256,512)",
        "--config.data.augment.aspect_range=()",
        "--config.mesh.tower=1",
        "--config.data.dir",
        "/somewhere",
    )
    config = parsed.config
    assert (parsed.name, parsed.variant) == ("alexnet", "digits")
    assert config.batch_size == 32
    assert config.optimizer.weight_decay == 1e-3
    assert config.model.lrn is False
    assert config.data.augment.flip is False
    assert config.model.without == "conv3,fc7"
    assert config.optimizer.drop_epochs == (3, 5)
    assert config.data.augment.scale_range == (256, 512)
    assert config.data.augment.aspect_range == ()
    assert config.mesh.tower == 1
    assert config.data.dir == "/somewhere"
    assert parsed.overrides["model.without"] == "conv3,fc7"
    assert len(parsed.overrides) == 10


def test_tuples_take_what_they_hold():
    figure1 = "--config=configs/cifar10.py:figure1"
    pools = parse(figure1, "--config.model.pools=('l2', 'max', 'max')").config.model.pools
    assert pools == ("l2", "max", "max")
    with pytest.raises(ConfigError, match=r"pools takes texts, such as \('max', 'average'"):
        parse(figure1, "--config.model.pools=(1, 2, 3)")


def test_overrides_may_stand_before_the_config():
    assert parse("--config.batch_size=8", ALEXNET).config.batch_size == 8
    assert parse("--config.batch_size=8", "--config", "configs/alexnet.py").config.batch_size == 8


def test_what_follows_the_batch_size_moves_with_it():
    config = parse(ALEXNET, "--config.batch_size=256").config
    assert config.optimizer.learning_rate == pytest.approx(0.02)
    assert config.evaluation.batch_size == 256
    for order in (
        ("batch_size=256", "optimizer.learning_rate=0.5"),
        ("optimizer.learning_rate=0.5", "batch_size=256"),
    ):
        config = parse(ALEXNET, *(f"--config.{field}" for field in order)).config
        assert config.optimizer.learning_rate == 0.5
        assert config.batch_size == 256


@pytest.mark.parametrize("field", ["evaluation.batch_size=7", "optimizer.learning_rate=1.0"])
def test_what_follows_does_not_lead(field):
    config = parse(ALEXNET, f"--config.{field}").config
    assert config.batch_size == 128


def test_the_last_of_several_counts():
    parsed = parse(
        "--config=configs/none.py",
        "--config=configs/alexnet.py:digits",
        "--config.seed=1",
        "--config.model.hidden=(8, 8)",
        "--config.model.hidden=(16, 16)",
        "--config.seed=2",
    )
    assert parsed.variant == "digits"
    assert parsed.config.model.hidden == (16, 16)
    assert parsed.config.seed == 2


def test_crop_and_network_agree():
    assert parse(ALEXNET, "--config.data.crop=96").config.model.image_size == 96


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no --config; for example --config=configs/alexnet.py:digits"),
        (["--config=configs/nothing.py"], "no file configs/nothing.py; there are .*alexnet.py"),
        (["--config=nowhere/nothing.py"], "no file nowhere/nothing.py; there are .*alexnet.py"),
        ([f"{ALEXNET}:twelve"], "no variant :twelve; there are :original, :one_gpu, :six_conv"),
        (
            [ALEXNET, "--config.model.droput=0"],
            "no such field; did you mean --config.model.dropout?",
        ),
        ([ALEXNET, "--config.dropout=0"], "did you mean --config.model.dropout?"),
        ([ALEXNET, "--config.learning_rate=1"], "did you mean --config.optimizer.learning_rate?"),
        (
            [ALEXNET, "--config.zzz=1"],
            "--config.zzz: no such field; there are batch_norm, batch_size, ",
        ),
        ([ALEXNET, "--config.batch_size=many"], "batch_size takes an integer"),
        ([ALEXNET, "--config.batch_size=1.5"], "batch_size takes an integer"),
        ([ALEXNET, "--config.model.dropout=half"], "model.dropout takes a number"),
        ([ALEXNET, "--config.model.lrn=perhaps"], "model.lrn takes true or false"),
        ([ALEXNET, "--config.optimizer.drop_epochs=soon"], "drop_epochs takes numbers"),
        (
            [ALEXNET, "--config.evaluation=1"],
            "a group of fields; override one: evaluation.batch_size",
        ),
        ([ALEXNET, "--config.total_steps=3", "--config.total_epochs=1"], "in two units; give one"),
        (["--config="], "no --config; for example"),
        (["--config=alexnet"], "no file alexnet; there are configs/alexnet.py"),
        (["--config=config/alexnet.py"], "there are configs/alexnet.py"),
        (["--config=configs/common.py"], "common.py defines no get_config"),
        (["--config=README.md"], "README.md defines no get_config"),
        ([ALEXNET, "--config.=3"], "overrides are written --config.field=value"),
        ([ALEXNET, "--config.seed"], "--config.seed: no value"),
        ([ALEXNET, "--mdoe=train"], "Unknown command line flag 'mdoe'"),
        ([ALEXNET, "train"], "'train' is not understood"),
    ],
)
def test_faults_are_named_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as caught:
        parse(*arguments)
    assert len(str(caught.value).splitlines()) == 1


def duration(**value):
    config = ConfigDict()
    add_duration(config, "total", **value)
    return config


@pytest.mark.parametrize(
    "value, steps",
    [
        ({"steps": 7}, 7),
        ({"epochs": 2.0}, 20),
        ({"epochs": 0.25}, 2),
        ({"epochs": 0.01}, 1),
        ({"epochs": 0.0}, 0),
        ({"examples": 250}, 2),
        ({}, None),
    ],
)
def test_durations_in_any_unit(value, steps):
    assert to_steps(duration(**value), "total", batch_size=100, examples_per_epoch=1000) == steps


def test_several_moments():
    config = ConfigDict()
    add_duration(config, "drop", several=True, epochs=(1, 2.5))
    assert to_steps(config, "drop", batch_size=10, examples_per_epoch=100) == (10, 25)


def test_an_override_in_another_unit_replaces_the_configs():
    config = duration(epochs=90.0)
    config.total_steps = 60
    with pytest.raises(ConfigError, match="total is given in steps and epochs"):
        to_steps(config, "total", batch_size=1, examples_per_epoch=1)
    keep_overridden_unit(config, ["total_steps"])
    assert to_steps(config, "total", batch_size=1, examples_per_epoch=1) == 60


def test_negative_durations_are_named():
    with pytest.raises(ConfigError, match="total_steps=-1: a number of 0 or more"):
        to_steps(duration(steps=-1), "total", batch_size=1, examples_per_epoch=1)


@pytest.mark.parametrize(
    "text, message",
    [
        ("def get_config(:", "line 1: invalid syntax"),
        ("import nowhere\ndef get_config(): ...", "line 1: ModuleNotFoundError: No module named"),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError: division by zero"),
        (
            "def rate():\n    return {}['lr']\ndef get_config(variant=''):\n    rate()",
            "line 2: KeyError: 'lr'",
        ),
        ("def get_config():\n    raise ValueError('two\\nlines')", "line 2: ValueError: two lines"),
        ("def get_config():\n    raise SystemExit", "line 2: SystemExit"),
        ("def get_config(a, b): ...", "TypeError: get_config.. missing 2 required"),
        ("def get_config(): ...", "returns NoneType, not a ConfigDict"),
        ("def get_config():\n    return {'seed': 1}", "returns dict, not a ConfigDict"),
        ("get_config = 3", "defines no get_config"),
        (
            "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()",
            "no field batch_norm.group, .*begin with configs.common.base_config",
        ),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(tmp_path, text, message):
    """Some of these ml_collections passes on as they are, others it wraps."""
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"mine.py: .*{message}") as caught:
        parse(f"--config={path}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_directory_called_like_a_config_is_none(tmp_path):
    (tmp_path / "a.py").mkdir()
    with pytest.raises(ConfigError, match=r"no file .*a\.py"):
        parse(f"--config={tmp_path / 'a.py'}")


def test_homes_are_put_into_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my configs").mkdir()
    (tmp_path / "my configs" / "mine.py").write_text(
        "from configs import alexnet\ndef get_config(variant=''):\n"
        "    return alexnet.get_config(variant)\n"
    )
    given = [f"--config.{field}=~/a b/é" for field in PATHS]
    parsed = parse("--config=~/my configs/mine.py:digits", *given)
    assert (parsed.name, parsed.variant) == ("mine", "digits")
    expand_paths(parsed.config)
    for field in PATHS:
        assert command_line._get(parsed.config, field) == f"{tmp_path}/a b/é"
    # What is not at the beginning, or has a slash before it, is a name like any other.
    for path in ("./~", "a/~/b", "/~", "", "./gs://b/r", "/gs://b", "gs:/b", "a b://c"):
        assert expanded("--workdir", path) == path
    for path in ("~nobody-of-this-name/x", "~nobody-of-this-name"):
        with pytest.raises(ConfigError, match=r"--workdir=.*or \./~nobody-of-this-name for what"):
            expanded("--workdir", path)
    for url in ("gs://bucket/run", "s3://b", "https://a.b/vgg16.pth", "file:///x", "a+b-1.c://d"):
        with pytest.raises(ConfigError, match=r"--workdir=.*: a URL.* mount the bucket"):
            expanded("--workdir", url)
    with pytest.raises(ConfigError, match=r"data.dir=gs://b/c: a URL"):
        expand_paths(parse(f"{ALEXNET}:digits", "--config.data.dir=/a,gs://b/c").config)


def test_no_field_that_holds_a_path_is_forgotten():
    """A path is a text without a choice of names: those that are None or called so."""
    config = parse(f"{ALEXNET}:digits").config
    ends = ("dir", "_from", "path", "validation_labels", "excluded", "classifier")
    named = {f for f in command_line.field_names(config) if f.endswith(ends)}
    assert named == set(PATHS)
