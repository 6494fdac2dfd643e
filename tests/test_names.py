"""`--config.model.name`: a name means its network, in every config."""

import functools
import json

import jax
import pytest
from flax import nnx

import main
import modes
import training
import vision_models
from configs import command_line, fields
from configs.common import ConfigError
from tests.configs.test_configs import ALL, get_config
from tests.conftest import ROOT
from training import workdir as workdirs
from vision_models import weights
from vision_models.functional import functional


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def parse(source, *arguments):
    """As main does, up to the resolved network."""
    parsed = command_line.parse(
        ["main.py", f"--config={ROOT / 'configs' / source}", *arguments], main.define_flags()
    )
    command_line.check(parsed)
    main.resolve(parsed)
    return parsed.config


def source_of(name, variant):
    return f"{name}.py:{variant}".rstrip(":")


@functools.cache
def _shapes(name, options):
    network = functional(lambda rngs: vision_models.create(name, rngs=rngs, **json.loads(options)))
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(network.init, jax.random.key(0)))


def shapes(name, **options):
    """Shapes of a network's parameters and statistics, or why it cannot be built."""
    try:
        return _shapes(name, json.dumps(options, sort_keys=True))
    except ValueError as error:
        return str(error)


def of_config(config):
    name, options = training.model_options(config.model)
    return shapes(name, **options)


def of_name(name, config):
    return shapes(name, num_classes=config.model.num_classes, image_size=config.model.image_size)


def one_of_each_set_of_fields():
    found = {}
    for case in ALL:
        model = get_config(*case).model
        found.setdefault((frozenset(model), model.image_size), source_of(*case))
    return list(found.values())


@pytest.mark.parametrize(
    "source, name",
    [
        ("cifar10.py:resnet20", "plain20"),
        ("cifar10.py:plain20", "resnet32"),
        ("cifar10.py:13pct", "cifar10_11pct"),
        ("cifar10.py:11pct", "cifar10_13pct"),
        ("resnet.py:34", "plain34"),
        ("resnet.py:18", "preact_resnet18"),
        ("alexnet.py", "alexnet_one_gpu"),
        ("alexnet.py:one_gpu", "alexnet"),
        ("alexnet.py:owt", "alexnet_six_conv"),
        ("zfnet.py", "zfnet_wide"),
        ("vgg.py:d", "vgg_d_no_fc"),
        ("vgg.py:d_no_fc", "vgg_d"),
        ("vgg.py:a_bn", "vgg_a"),
        ("vgg.py:a", "vgg_b_bn"),
        ("vgg.py:a", "alexnet"),
        ("googlenet.py", "googlenet_bn"),
        ("lenet5.py", "lenet5_linear"),
        ("lenet5.py:linear", "lenet5"),
        ("convnet.py", "cifar10_18pct"),
        ("convnet.py", "conv_relu_pool_fc"),
    ],
)
def test_a_name_means_its_network(source, name):
    config = parse(source, f"--config.model.name={name}")
    assert config.model.name == name
    assert of_config(config) == of_name(name, config)
    assert config.is_locked and config.model.is_locked


@pytest.mark.slow
@pytest.mark.parametrize("source", one_of_each_set_of_fields())
def test_every_name_means_its_network_in_every_config(source):
    for name in vision_models.list_models():
        config = parse(source, f"--config.model.name={name}")
        assert of_config(config) == of_name(name, config), name


@pytest.mark.parametrize("name, variant", ALL)
def test_every_name_resolves_to_its_defaults_in_every_config(name, variant):
    """The same without building them."""
    model = get_config(name, variant).model.to_dict()
    for other in vision_models.list_models():
        if other == model["name"]:
            continue
        made = training.model_fields(model | {"name": other}, {"model.name": other}, model["name"])
        kept = {k: model[k] for k in ("num_classes", "image_size")}
        assert made == {"name": other, **vision_models.default_options(other), **kept}


@pytest.mark.parametrize("name, variant", ALL)
def test_configs_networks_are_what_their_names_say(name, variant):
    written = get_config(name, variant).model
    config = parse(source_of(name, variant), f"--config.model.name={written.name}")
    assert config.model.to_dict() == written.to_dict()
    network, options = training.model_options(config.model)
    assert vision_models.name_of(network, options) == network


@pytest.mark.slow
def test_configs_networks_have_the_parameters_of_their_names():
    small = {("localization", "digits")}  # of fewer kernels, which no paper has
    for case in ALL:
        config = parse(source_of(*case))
        same = of_config(config) == of_name(config.model.name, config)
        assert same == (case not in small), case


@pytest.mark.parametrize(
    "source, arguments, message",
    [
        ("alexnet.py", ["name=alexnet_one_gpu", "towers=2"], "model.towers=2: contradicts model."),
        ("alexnet.py:one_gpu", ["name=alexnet_one_gpu", "towers=2"], "stands for towers=1; choose"),
        ("resnet.py:34", ["name=plain34", "shortcut=pad"], "stands for shortcut=none"),
        ("resnet.py:34", ["name=resnet50", "depth=34"], "model.depth=34: contradicts .*depth=50"),
        ("vgg.py:d", ["name=vgg_d_bn", "batch_norm=False"], "stands for batch_norm=True"),
        ("vgg.py:d", ["name=resnet18", "hidden=(8,8)"], "hidden: no option of resnet18; it has"),
        ("vgg.py:d", ["name=alexnet", "hidden=8"], r"model.hidden=\(8,\): 2 values, for each"),
        ("vgg.py:d", ["name=alexnet", "kernelz=8"], "kernelz: no such field; did you mean"),
        ("vgg.py:d", ["name=alexnte"], "config.model.name: no model 'alexnte'; did you mean 'ale"),
        ("vgg.py:d", ["shortcut=pad"], "shortcut: no such field"),
        ("vgg.py:d", ["name=vgg_d", "shortcut=pad"], "shortcut: no such field"),  # its own name
        ("vgg.py:d", ["name=alexnet", "towers={[1]}"], r"model.towers=\{\[1\]\}: 1 to 64"),
        ("vgg.py:d", ["name=alexnet", f"init_std=1{'0' * 400}"], "model.init_std=1000"),
    ],
)
def test_what_contradicts_a_name_is_said(source, arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(source, *(f"--config.model.{argument}" for argument in arguments))


def test_runs_that_named_another_network_are_continued(tmp_path):
    """Their config.json has the options of the config's own file, and not all of the network's."""
    saved = json.loads(get_config("resnet", "50").to_json_best_effort())
    saved["model"]["name"] = "resnet101"
    workdirs.save_config(tmp_path, saved, {"fingerprint": "f", "class_names": ["a"]})
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    config = parse("resnet.py:50", "--config.model.name=resnet101")
    workdirs.check_continuation(tmp_path, json.loads(config.to_json_best_effort()))
    other = parse("resnet.py:50", "--config.model.name=resnet152")
    with pytest.raises(training.TrainingError, match=r"model.name \(was resnet101, now resnet152"):
        workdirs.check_continuation(tmp_path, json.loads(other.to_json_best_effort()))


def test_overrides_beside_a_name_are_of_its_network():
    config = parse(
        "convnet.py",
        "--config.model.kernels=(8, 16, 16, 16, 16)",
        "--config.model.conv6=12",
        "--config.model.dropout=0",
        "--config.model.lrn_constants.k=1",
        "--noconfig.model.connected",
        "--config.model.inverted_dropout",
        "--config.model.name",
        "alexnet",
        "--config.data.resize=72",
        "--config.data.crop=64",
        "--config.model.num_classes=7",
    )
    model = config.model.to_dict()
    changed = {
        "kernels": (8, 16, 16, 16, 16),
        "conv6": 12,
        "dropout": 0.0,
        "lrn_constants": {**vision_models.default_options("alexnet")["lrn_constants"], "k": 1.0},
        "connected": False,
        "inverted_dropout": True,
        "image_size": 64,
        "num_classes": 7,
    }
    assert model == {"name": "alexnet", **vision_models.default_options("alexnet"), **changed}


OWN = """
from configs import cifar10


def get_config(variant=""):
    config = cifar10.get_config("resnet20")
    config.model.name = "plain20"
    {}
    return config
"""


def test_configs_of_ones_own_do_not_overrule_their_names(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(OWN.format(""))
    with pytest.raises(ConfigError, match=r"model.shortcut=pad: contradicts model.name=plain20"):
        parse(own)
    assert parse(own, "--config.model.shortcut=pad").model.shortcut == "pad"  # on purpose
    own.write_text(OWN.format("config.model.shortcut = 'none'"))
    config = parse(own)
    assert of_config(config) == of_name("plain20", config)


def saved_run(workdir, model):
    (workdir / "checkpoints" / "3").mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps({"config": {"model": model}}))


def test_runs_from_before_a_network_got_its_name_go_on(tmp_path):
    for number, (source, before) in enumerate(
        [("vgg.py:d_bn", "vgg_d"), ("vgg.py:a_bn", "vgg_a"), ("lenet5.py:linear", "lenet5")]
    ):
        now = {"model": modes.plain(parse(source).model)}
        saved_run(tmp_path / str(number), now["model"] | {"name": before})
        workdirs.check_continuation(tmp_path / str(number), now)
        other = {"model": now["model"] | {"name": before, "batch_norm": False, "head": "rbf"}}
        with pytest.raises(training.TrainingError, match=r"model.name \(was"):
            workdirs.check_continuation(tmp_path / str(number), other)


def test_a_run_whose_name_was_overruled_is_told_from_one_of_that_name(tmp_path):
    """`cifar10.py:resnet20 --config.model.name=plain20` trained resnet20 once."""
    before = modes.plain(get_config("cifar10", "resnet20").model) | {"name": "plain20"}
    saved_run(tmp_path, before)
    now = modes.plain(parse("cifar10.py:resnet20", "--config.model.name=plain20").model)
    with pytest.raises(training.TrainingError, match=r"model.name \(was resnet20, now plain20\)"):
        workdirs.check_continuation(tmp_path, {"model": now})


@pytest.mark.slow
def test_weights_under_the_names_of_before_still_fit(tmp_path):
    small = {"hidden": (8, 8), "num_classes": 5, "image_size": 32}
    for before, now, option in (
        ("vgg_a", "vgg_a_bn", {**small, "batch_norm": True}),
        ("vgg11", "vgg_a_bn", {**small, "batch_norm": True}),
        ("lenet5", "lenet5_linear", {"head": "linear"}),
    ):
        model = vision_models.create(before, rngs=nnx.Rngs(0), **option)
        split = nnx.split(model, nnx.Param, nnx.BatchStat)[1:]
        params, statistics = (nnx.to_pure_dict(part) for part in split)
        path = tmp_path / "w.safetensors"
        weights.save(path, before, option, params, statistics)
        options = {k: v for k, v in option.items() if k in small}
        loaded = weights.load(path, now, options)
        assert not loaded.fresh and loaded.name == now


def test_every_definition_is_of_fields(tmp_path):
    for name in vision_models.list_models():
        for option, value in vision_models.definition(name).items():
            assert fields.fault(f"model.{option}", value, name) is None


@pytest.mark.slow
def test_every_mode_has_the_named_network(tmp_path, capsys):
    run = [
        "--config=configs/cifar10.py:resnet20", "--config.model.name=cifar10_11pct",
        "--config.model.local3=64", "--config.data.name=digits", "--config.batch_size=4",
        "--config.evaluation.batch_size=60", "--config.total_steps=2", "--config.mesh.data=1",
        f"--workdir={tmp_path}",
    ]  # fmt: skip
    for mode in ("train", "evaluate", "export", "train"):
        assert main.main(["main.py", *run, f"--mode={mode}"]) == 0, capsys.readouterr().err
    saved = json.loads((tmp_path / "config.json").read_text())["config"]["model"]
    assert (saved["name"], saved["norm"], saved["local3"]) == ("cifar10_11pct", True, 64)
    assert "shortcut" not in saved
    loaded = weights.load(tmp_path / "weights.safetensors", "cifar10_11pct", {"image_size": 32})
    found = jax.tree.map(lambda leaf: leaf.shape, loaded.params)
    assert found == shapes("cifar10_11pct", num_classes=10, image_size=32)[0]
    capsys.readouterr()
    assert main.main(["main.py", *run, "--mode=summary"]) == 0
    assert capsys.readouterr().out.startswith("cifar10_11pct\n")
    assert main.main(["main.py", *run, "--config.model.norm=False"]) == 2
    assert "contradicts model.name=cifar10_11pct" in capsys.readouterr().err


def test_images_too_small_for_a_network_are_named_by_their_fields(capsys):
    run = ["--config=configs/cifar10.py:resnet20", "--mode=summary"]
    assert main.main(["main.py", *run, "--config.model.name=alexnet"]) == 2
    assert "data.crop, model: image_size=32, window " in capsys.readouterr().err
