"""Fields without effect are said, and only these."""

import fnmatch

import pytest

import main
import vision_models
from configs import command_line, common, notes
from input_pipeline.from_config import choices
from tests.configs.test_configs import ALL, get_config
from tests.configs.test_tiny_runs import Recorder
from tests.conftest import ROOT
from training import recipe_from_config, task_from_config
from training.optimizer import Average
from vision_models.functional import functional

ALEXNET, RESNET, LENET = "alexnet.py", "resnet.py:50", "lenet5.py:caffe"


def said(source, *overrides, mode="train"):
    """The remarks on a command line."""
    parsed = command_line.parse(
        ["main.py", f"--config={ROOT / 'configs' / source}", *(f"--config.{o}" for o in overrides)],
        main.define_flags(),
    )
    command_line.check(parsed)
    main.resolve(parsed)
    config, written = parsed.config.to_dict(), parsed.written.to_dict()
    return notes.remarks(config, written, mode, parsed.overrides)


# Part of the entry's reason, config, override without effect, what gives it one; and what takes it
# away, where the config as it stands does not.
CASES = [
    ("data.name=digits is", ALEXNET + ":digits", "data.dir=/x", ["data.name=folder"]),
    ("data.prepared_dir is", ALEXNET, "data.dir=/x", [], ["data.prepared_dir=/y"]),
    (
        "has the labels", ALEXNET, "data.validation_labels=/x", [], ["data.prepared_dir=/y"],
    ),
    ("images of ImageNet", ALEXNET, "data.validation_labels=/x", [], ["data.name=folder"]),
    ("only with data.folds", ALEXNET, "data.fold=2", ["data.folds=3"]),
    (
        "data.folds, data.train_examples or", ALEXNET, "data.choice_seed=2",
        ["data.train_examples_per_class=3"],
    ),
    ("--mode=prepare_data", ALEXNET, "data.prepare.format=jpeg", ["data.prepared_dir=/y"]),
    (
        "only with data.prepare.format=jpeg", ALEXNET, "data.prepare.quality=80",
        ["data.prepare.format=jpeg"], ["data.prepared_dir=/y"],
    ),
    ("data.mean=values", ALEXNET, "data.mean_values=(1,2,3)", ["data.mean=values"]),
    ("crop=area", RESNET, "data.augment.area_range=(.5,1)", ["data.augment.crop=area"]),
    (
        "colour_noise", LENET, "data.augment.colour_noise_until_epochs=3",
        ["data.augment.colour_noise=paper"],
    ),
    ("one tower", ALEXNET + ":one_gpu", "model.connected=False", ["model.towers=2"]),
    ("only that of fc7", ALEXNET, "model.exchanges=fc6", [], ["model.connected=False"]),
    ("takes its place", ALEXNET, "model.lrn_constants.k=1", [], ["model.lcn=True"]),
    ("model.lrn=True", ALEXNET, "model.lrn_constants.k=1", [], ["model.lrn=False"]),
    (
        "a normalisation", ALEXNET, "model.pool_before_norm=True", ["model.spatial_norm2=True"],
        ["model.lrn=False"],
    ),
    ("init=gaussian", RESNET, "model.init_std=.02", ["model.init=gaussian"]),
    (
        "biases of its own", "googlenet.py", "model.init_bias=.1", [],
        ["model.name=googlenet_bn"],
    ),
    ("only with model.dropout", ALEXNET, "model.inverted_dropout=True", [], ["model.dropout=0"]),
    ("fc6 and fc7", ALEXNET, "model.hidden=(8,8)", [], ["model.without=fc7, fc6"]),
    ("leaves no layers", "vgg.py:a", "model.dropout=.1", [], ["model.hidden=()"]),
    ("hidden_layers", "convnet.py", "model.hidden=9", [], ["model.hidden_layers=0"]),
    ("model.stages", "convnet.py", "model.kernels=9", [], ["model.stages=0"]),
    ("in GoogLeNet", "googlenet.py", "model.lrn=False", [], ["model.name=googlenet_bn"]),
    (
        "auxiliary=True", "googlenet.py", "model.auxiliary_dropout=.1", [],
        ["model.auxiliary=False"],
    ),
    ("bottlenecks", "resnet.py:34", "model.stride_in=3x3", ["model.name=resnet50"]),
    (
        "only with optimizer.drop_*", "cifar10.py:figure1", "optimizer.drop_factor=.5",
        ["optimizer.drop_steps=(3,)"],
    ),
    (
        "only with optimizer.plateau_patience", LENET, "optimizer.plateau_drops=2",
        ["optimizer.plateau_patience=3"],
    ),
    ("warmup", RESNET, "optimizer.warmup_factor=.5", ["optimizer.warmup_examples=8"]),
    (
        "only with optimizer.weight_decay", "lenet5.py", "optimizer.decay_biases=True",
        ["optimizer.weight_decay=.1"],
    ),
    (
        "exponential", ALEXNET, "optimizer.average_decay=.9", ["optimizer.average=exponential"],
    ),
    (
        "only with optimizer.average", ALEXNET, "optimizer.average_from_steps=9",
        ["optimizer.average=polyak"],
    ),
    ("no BatchNorm", "vgg.py:a", "batch_norm.group=8", ["model.batch_norm=True"]),
    (
        "no BatchNorm", "cifar10.py:plain20", "batch_norm.group=8", [], ["model.batch_norm=False"],
    ),
    ("no dropout", RESNET, "evaluation.dropout_masks=9", ["model.name=vgg_a"]),
    (
        "evaluation.dropout_masks", ALEXNET, "evaluation.dropout_seed=1",
        ["evaluation.dropout_masks=9"],
    ),
    ("auxiliary classifiers", ALEXNET, "loss.auxiliary_weight=.3", ["model.name=googlenet"]),
    ("init_from", ALEXNET, "init_head=new", ["init_from=/x.pth"]),
    (
        "a network of boxes", ALEXNET, "evaluation.save_scores=True",
        ["evaluation.protocol=center_crop"], ["evaluation.protocol=center_crop_true_class"],
    ),
    ("data.boxes.count", ALEXNET, "data.boxes.extent=visible", ["data.boxes.count=4"]),
    (
        "takes the true one", ALEXNET, "evaluation.merge.classes=3",
        ["evaluation.protocol=dense_boxes"], ["evaluation.protocol=dense_boxes_true_class"],
    ),
    (
        "protocols that merge boxes", ALEXNET, "evaluation.classifier=/x",
        ["evaluation.protocol=dense_boxes"],
    ),
    (
        "slides over images", ALEXNET, "evaluation.dense_average=probabilities",
        ["evaluation.protocol=dense"],
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[2])
def test_a_field_without_effect_is_said(case):
    reason, source, override, effect, *without = case
    besides = without[0] if without else []
    mode = "evaluate" if override.startswith("evaluation.save") else "train"
    (line,) = said(source, *besides, override, mode=mode)
    field = override.partition("=")[0]
    assert line.startswith(f"--config.{field}=") and " has no effect: " in line and reason in line
    assert said(source, *(besides if effect else ()), *effect, override, mode=mode) == []


# Part of the entry's reason, config, override, a mode without its effect, and one with it.
OF_MODES = [
    ("only with --mode=evaluate", ALEXNET, "evaluation.save_scores=True", "train", "evaluate"),
    ("only with --mode=evaluate or", "vgg.py:d", "evaluation.scales=(256,)", "train", "predict"),
    ("computes without dropout", ALEXNET, "evaluation.dropout_masks=9", "predict", "evaluate"),
    ("all of the training set is", ALEXNET, "data.train_examples=9", "prepare_data", "train"),
    ("all of the training set is", ALEXNET, "data.classes=(0, 1)", "prepare_data", "train"),
    ("only in training", ALEXNET, "data.sampling=balanced", "evaluate", "train"),
    ("only in training", ALEXNET, "loss.class_weights=balanced", "evaluate", "compile"),
    (
        "only with --mode=evaluate_guesses",
        ALEXNET,
        "evaluation.excluded=/x",
        "train",
        "evaluate_guesses",
    ),
    ("no data are opened", ALEXNET, "data.dir=/x", "compile", "train"),
    (
        "only with --mode=train",
        ALEXNET,
        "evaluation.validation_protocol=ten_view",
        "evaluate",
        "train",
    ),
]


@pytest.mark.parametrize("reason, source, override, without, effect", OF_MODES)
def test_a_field_without_effect_in_a_mode_is_said(reason, source, override, without, effect):
    (line,) = said(source, override, mode=without)
    assert override in line and reason in line
    assert said(source, override, mode=effect) == []


def test_every_entry_has_a_case():
    for note in notes.NOTES:
        assert any(reason in note.reason for reason, *_ in [*CASES, *OF_MODES]), note
        for path in note.paths:
            known = [p for p in command_line.fields.FIELDS if fnmatch.fnmatchcase(p, path)]
            assert known, path


def test_modes_that_name_no_network():
    """Every field that they take can be overridden without an error."""
    without = common.any_config().to_dict()
    for note in notes.NOTES:
        for path in note.paths:
            notes.reason(path.replace("*", "x"), without, "describe_data")
    (line,) = notes.without_effect(without, "describe_data", {"batch_norm.group": 8})
    assert "no BatchNorm" in line


@pytest.mark.parametrize("name, variant", ALL)
def test_nothing_is_said_of_a_config_as_it_stands(name, variant):
    assert said(f"{name}.py:{variant}".rstrip(":")) == []


def test_preparing_takes_what_is_for_preparing():
    override = "data.prepare.format=jpeg"
    assert said(ALEXNET, override, mode="prepare_data") == []
    assert said(ALEXNET, "data.prepared_dir=/x", "data.dir=/y", mode="prepare_data") == []


SMALL = ("alexnet", "vgg_a", "vgg_a_bn", "resnet18", "plain20", "lenet5", "all_cnn_a", "convnet")


@pytest.mark.parametrize(
    "names", [SMALL, pytest.param(vision_models.list_models(), marks=pytest.mark.slow)]
)
def test_what_is_known_of_networks_is_so(names):
    for name in names:
        options = vision_models.default_options(name)
        model = {"name": name, **options}
        layers = functional(lambda rngs, name=name: vision_models.create(name, rngs=rngs))
        assert notes.has_batch_norm(model) == layers.has_statistics, name
        if "stride_in" in options:
            assert notes.has_bottlenecks(model) == (options["depth"] >= 50)


OWN = """
from configs import alexnet


def get_config(variant=""):
    config = alexnet.get_config("digits")
    config.optimizer.learning_rate = {}
    return config
"""


def test_a_rate_that_does_not_follow_the_batch_size_is_said(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(OWN.format("0.25"))
    (line,) = said(own, "batch_size=32")
    assert "--config.batch_size=32 leaves optimizer.learning_rate=0.25 as it is" in line
    assert said(own, "batch_size=64") == []
    assert said(own, "batch_size=32", "optimizer.learning_rate=0.1") == []
    for name, variant in ALL:
        source, size = f"{name}.py:{variant}".rstrip(":"), get_config(name, variant).batch_size
        assert said(source, f"batch_size={size * 2}") == []


def test_fields_with_an_effect_under_a_condition_are_read_under_it():
    read: set[str] = set()
    config = Recorder(get_config("googlenet", ""), read)
    choices(config.data)  # to prepare
    assert read >= {"data.prepare.format"}
    with config._config.unlocked():
        config._config.data.prepare.format = "jpeg"
        config._config.data.mean = "values"
    choices(config.data)
    with config._config.unlocked():
        config._config.mesh.data = 1
    recipe = recipe_from_config(
        config,
        task_from_config(config, 10),
        lambda name: 5 if name == "optimizer.average_from" else None,
    )
    assert recipe.average == Average("exponential", 0.9999, 5)
    assert read >= {"data.prepare.quality", "data.mean_values", "optimizer.average_decay"}
