"""The table of fields: every field of every config has its entry, and nonsense is named."""

import math

import pytest
from absl import flags

import vision_models
from configs import command_line, common, fields
from configs.common import ConfigError
from input_pipeline import DataError, from_config
from tests.configs.test_configs import ALL, get_config, value_of
from tests.conftest import ROOT
from vision_models import layers, pooling, weights

IMAGENET = 1_281_167


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def parse(source, *arguments):
    parsed = command_line.parse(["main.py", f"--config={source}", *arguments], flags.FlagValues())
    command_line.check(parsed)
    return parsed.config


def source_of(name, variant):
    return f"configs/{name}.py:{variant}".rstrip(":")


def options_of_networks():
    """The options of all networks as paths, by network."""
    for network in vision_models.list_models():
        for option, value in vision_models.default_options(network).items():
            if isinstance(value, dict):
                for name, constant in value.items():
                    yield network, f"model.{option}.{name}", constant
            else:
                yield network, f"model.{option}", value


@pytest.mark.parametrize("name, variant", ALL)
def test_configs_hold_what_their_fields_take(name, variant):
    parse(source_of(name, variant))


def test_networks_options_are_of_the_kinds_of_their_fields():
    for network, path, value in options_of_networks():
        assert fields.fault(path, value, network) is None


def test_every_entry_is_a_field_of_a_config_or_an_option_of_a_network():
    there = {
        fields.entry(path)
        for name, variant in ALL
        for path in command_line.field_names(get_config(name, variant))
    }
    there |= {path for _, path, _ in options_of_networks()}
    assert there == set(fields.FIELDS)
    for start, options in fields._OF_NETWORKS.items():
        assert any(network.startswith(start) for network in vision_models.list_models())
        assert set(options) <= set(fields.FIELDS)


@pytest.mark.parametrize(
    "field, known",
    [
        ("model.neuron", layers.NEURONS),
        ("model.init", layers.INITIALIZERS),
        ("model.pool", pooling.POOLS),
        ("init_preprocessing", ("config", *weights.PREPROCESSING)),
        ("model.shortcut", vision_models.resnet.SHORTCUTS),
        ("model.configuration", vision_models.vgg.CONFIGURATIONS),
        ("model.base", vision_models.all_convolutional.BASES),
        ("model.reduction", vision_models.all_convolutional.REDUCTIONS),
        ("model.without", vision_models.alexnet.REMOVABLE),
    ],
)
def test_choices_are_those_of_the_packages(field, known):
    kind = fields.FIELDS[field]
    assert all(kind.takes(name) for name in known)
    said = kind.says.split("one of ")[-1].removeprefix("empty, or some of ")
    assert said.removesuffix(", with commas").split(", ") == list(known)


@pytest.mark.parametrize(
    "override, message",
    [
        ("optimizer.momentum=-1", "--config.optimizer.momentum=-1.0: 0 to 1"),
        ("optimizer.learning_rate=nan", "--config.optimizer.learning_rate=nan: 0 to 1e+18"),
        ("optimizer.average_decay=1", "average_decay=1.0: above 0 to below 1"),
        ("optimizer.plateau_patience=-1", "optimizer.plateau_patience=-1: 0 to 2147483647, whole"),
        ("optimizer.groups.biases.multiplier=inf", "groups.biases.multiplier=inf: 0 to 1000"),
        ("data.deviation=(1.0,1e999,1.0)", "data.deviation=(1.0, inf, 1.0): 3 values"),
        ("data.deviation=(1,1)", "data.deviation=(1, 1): 3 values"),
        ("data.resize=1000000000", "data.resize=1000000000: 1 to 4096"),
        ("evaluation.batch_size=1000000000", "evaluation.batch_size=1000000000: 1 to 131072"),
        ("total_epochs=1e308", "total_epochs=1e+308: 0 to 2147483647"),
        ("total_steps=100000000000000000000", "total_steps=100000000000000000000: 0 to 21"),
        ("total_epochs=-1e-9", "total_epochs=-1e-09: 0 to"),
        ("seed=4294967296", "seed=4294967296: 0 to 4294967295"),
        ("model.kernels=(96,256,384,384,256.0)", "384, 256.0): 5 values, for each 1 to 8192, wh"),
        ("model.kernels=(96,256,384,384,True)", "384, True): 5 values"),
        ("model.kernels=(96,256)", "model.kernels=(96, 256): 5 values"),
        (f"model.kernels={(7,) * 5000}", "7, ... (15000 characters): 5 values"),
        ("model.dropout=1", "model.dropout=1.0: 0 to below 1"),
        ("model.lrn_constants.k=0", "model.lrn_constants.k=0.0: above 0 to 1000"),
        ("model.without=conv9", "without=conv9: empty, or some of conv3, conv4"),
        ("profile_steps=(3,)", "profile_steps=(3,): 0 or 2 values, for each 1 to 2147483647"),
        ("data.decode=quick", "data.decode=quick: choose one of fast, exact"),
        ("data.name=", "data.name=: a text of 1 to 200 characters"),
    ],
)
def test_what_a_field_takes_is_said(override, message):
    with pytest.raises(ConfigError) as error:
        parse("configs/alexnet.py:caffe", f"--config.{override}")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300


HOSTILE = (
    "-1", "0", "0.5", "1e308", "1e20", "-1e308", "nan", "inf", "-inf", "", "abc", "None", "True",
    "100000000000000000000", "4294967296", "1000000000", "(1,2,3)", "(-1,)", "(nan,nan)", "()",
    "('a','b','c')", "(1.5,2.5)", "(1e999,1)", "((1,),)", "[[]]", "{}", "(" * 300, "9" * 5000,
    "(" + "1," * 3000 + ")", "\u0660", "1_000", "0x10", "lambda: 0", "\n", "%s", "a,b",
)  # fmt: skip


def one_of_each():
    """Every entry once, in a config that has it: (source, path)."""
    found = {}
    for name, variant in ALL:
        config = get_config(name, variant)
        for path in command_line.field_names(config):
            key = fields.entry(path), type(value_of(config, path))
            found.setdefault(key, (source_of(name, variant), path))
    return sorted(set(found.values()))


# An eighth of the fields; the others take as long each.
@pytest.mark.parametrize(
    "number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 8))]
)
def test_hostile_values_are_named_or_can_be_used(number):
    """In every field: an error that names it, or a config whose durations are steps."""
    taken = 0
    for source, path in one_of_each()[number::8]:
        for value in HOSTILE:
            try:
                config = parse(source, f"--config.{path}={value}")
            except ConfigError as error:
                said = str(error)
                assert path in said, (path, value, said)
                assert len(said.splitlines()) <= 2 and len(said) < 400, (path, value, said)
                continue
            taken += 1
            assert_usable(config, path, value_of(config, path))
    assert taken > 50


def assert_usable(config, path, value):
    parts = value if isinstance(value, tuple) else (value,)
    assert all(math.isfinite(v) for v in parts if isinstance(v, float)), (path, value)
    stem, _, unit = path.rpartition("_")
    if unit in fields.UNITS and all(fields.kind_of(f"{stem}_{other}") for other in fields.UNITS):
        try:
            steps = common.to_steps(
                config, stem, batch_size=config.batch_size, examples_per_epoch=IMAGENET
            )
        except ConfigError as error:
            assert path in str(error)
        else:
            several = steps if isinstance(steps, tuple) else (steps,)
            assert all(0 <= step <= fields.COUNT for step in several)
    if path.startswith("data."):
        try:
            from_config.choices(config.data)
        except DataError as error:
            assert path in str(error)


def test_durations_that_grow_too_long_are_named_with_the_training_set():
    config = parse("configs/alexnet.py", "--config.total_epochs=1000000")
    with pytest.raises(ConfigError, match=r"total_epochs=1000000.0: .*at most 2147483647 steps"):
        common.to_steps(config, "total", batch_size=1, examples_per_epoch=IMAGENET)
    with pytest.raises(ConfigError, match=r"optimizer.groups.a.drop_epochs=1e\+300: .*at most"):
        groups = {"optimizer": {"groups": {"a": common.parameter_group("a", drop_epochs=(1e300,))}}}
        common.to_steps(groups, "optimizer.groups.a.drop", batch_size=1, examples_per_epoch=1)


OWN = """
from configs import alexnet


def get_config(variant=""):
    config = alexnet.get_config("digits")
    {}
    return config
"""


@pytest.mark.parametrize(
    "lines, message",
    [
        ("config.optimizer.momentum = 1.5", "own.py: optimizer.momentum=1.5: 0 to 1"),
        ("config.data.colour = 1", "own.py: data.colour: no field that anything reads"),
        ("config.optimizer.momentun = 1.0", r"momentun: .* \(did you mean optimizer.momentum"),
        ("del config.optimizer.momentum", "own.py: no field optimizer.momentum; begin with"),
        ("config.data.deviation = [1.0, float('nan'), 1.0]", r"data.deviation=\(1.0, nan, 1.0\)"),
        ("config.model.kernels = (8, 8, 8, 8, True)", r"model.kernels=.*5 values"),
    ],
)
def test_configs_of_ones_own_are_held_against_the_table(tmp_path, lines, message):
    own = tmp_path / "own.py"
    own.write_text(OWN.format(lines))
    with pytest.raises(ConfigError, match=message):
        parse(str(own))
    # Of another name: Python takes a file of the same size and second for the one it compiled.
    right = tmp_path / "right.py"
    right.write_text(OWN.format("config.optimizer.momentum = 0.8"))
    assert parse(str(right)).optimizer.momentum == 0.8


def test_values_are_read_as_their_kinds():
    for text, path, value in (
        ("3", "model.dropout", 3.0),
        ("3", "model.conv6", 3),
        ("true", "model.lrn", True),
        ("False", "model.lrn", False),
        ("(1, 2)", "model.hidden", (1, 2)),
        ("5", "model.hidden", (5,)),
        ("3", "model.without", "3"),
        ("many", "model.conv6", "many"),
    ):
        read = fields.read(text, fields.kind_of(path))
        assert (read, type(read)) == (value, type(value))
