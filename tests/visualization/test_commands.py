"""Every command, on a small run whose dataset is embedded."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from configs.common import ConfigError
from tests.conftest import write_images
from tests.runs import TINY, drawn_run
from tests.visualization.pages import opened_of

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "command, arguments, pictures",
    [
        ("guesses", ["--mistakes"], ["guesses"]),
        ("neighbours", ["--limit=100", "--neighbours=3"], ["neighbours"]),
        ("tsne", ["--limit=40", "--perplexity=5", "--size=200"], ["tsne", "tsne_grid"]),
        ("activations", ["--layer=conv2"], ["activations_conv2"]),
        pytest.param("activations", ["--layer=ip1"], ["activations_ip1"], marks=pytest.mark.slow),
        ("responses", ["--limit=20"], ["responses"]),
        ("occlusion", ["--limit=20", "--stride=12"], ["occlusion"]),
        ("occlusion", ["--limit=1", "--stride=28"], ["occlusion"]),  # there are no others
        ("invariance", ["--count=2", "--steps=3"], ["invariance"]),
        pytest.param("gradients", ["--limit=20"], ["gradients"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_writes_its_pictures(look, run, tmp_path, command, arguments, pictures):
    with threadpool_limits(1):  # threads of OpenMP that wait hinder other processes
        check_pictures(look, run, tmp_path, command, arguments, pictures)


@pytest.mark.parametrize(
    "command, arguments, pictures",
    [
        ("kernels", ["--history", "--each"], ["kernels_history"]),
        ("selectivity", [], ["selectivity"]),
        pytest.param(
            "activations", ["--layer=conv3"], ["activations_conv3"], marks=pytest.mark.slow
        ),
        ("augmentation", [], ["augmentation"]),
    ],
    ids=str,
)
def test_of_two_towers(look, towers, tmp_path, command, arguments, pictures):
    check_pictures(look, towers, tmp_path, command, arguments, pictures)


def test_a_run_with_boxes_is_shown_images_without(look, private_cache, tmp_path):
    from visualization import command_line
    from visualization.opening import open_run_or_file

    root = write_images(tmp_path / "own", {f"{s}/{c}": 3 for s in ("train", "val") for c in "ab"})
    workdir = drawn_run(
        tmp_path / "run",
        "--config=configs/convnet.py:conv_relu_pool_fc",
        *("--config.model.kernels=2", "--config.data.boxes.count=3"),
        *("--config.data.name=folder", f"--config.data.dir={root}"),
        *("--config.data.resize=12", "--config.data.pad=0", "--config.data.crop=12"),
    )
    opened = open_run_or_file(command_line.make_parser("").parse_args([str(workdir)]))
    (batch,) = opened.images(2)
    assert len(batch["image"]) == 2 and "boxes" not in batch
    check_pictures(look, workdir, tmp_path, "augmentation", [], ["augmentation"])


def test_which_layers_are_of_towers(towers):
    """All from the first with parameters to the one before the scores, which are of both."""
    from visualization import command_line
    from visualization.opening import open_run_or_file

    opened = open_run_or_file(command_line.make_parser("").parse_args([str(towers)]))
    found = {layer: opened.towers(layer) for layer in opened.layers}
    assert found.pop("fc8") == 1
    assert {"conv1", "norm1", "pool5", "fc7"} <= set(found) and set(found.values()) == {2}


def check_pictures(look, run, out, command, arguments, pictures):
    code, printed, err = look(command, run, f"--out={out}", *arguments)
    assert code == 0, err
    assert [line for line in printed if line.endswith(".png")] == [
        str(out / f"{name}.png") for name in pictures
    ]
    for name in pictures:
        with Image.open(out / f"{name}.png") as image:
            assert np.ptp(np.asarray(image.convert("L"))) > 50


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        (
            "activations",
            ["--layer=conv9"],
            "--layer=conv9: no such layer; did you mean conv2? there are grey, conv1",
        ),
        ("activations", ["--index=99999"], "images are numbered 0 to"),
        ("activations", ["--image=setup.cfg"], "setup.cfg"),
        ("activations", ["--image=nothing.jpg"], "nothing.jpg"),
        ("neighbours", ["--limit=5"], "--neighbours=6: there are 5 images"),
        ("tsne", ["--limit=10"], "--perplexity=30"),
        ("tsne", ["--limit=1", "--perplexity=.5"], "one image has no place among others"),
        ("tsne", ["--size=3"], "--size: 3: at least 4"),
        ("occlusion", ["--layer=ip1"], "--layer=ip1: makes no maps; there are"),
        ("occlusion", ["--square=9999"], "--square=9999: the network sees"),
        ("occlusion", ["--truth=dragon"], "--truth=dragon: no such class; there are 10"),
        ("occlusion", ["--others=-1"], "--others=-1: at least 0"),
        ("invariance", ["--layers=conv1"], "two names"),
        ("invariance", ["--steps=1"], "--steps: 1: at least 2"),
        ("invariance", ["--layers=conv1,conv9"], "did you mean conv"),
        ("guesses", ["--batch_size=0"], "at least 1"),
        ("guesses", ["--split=x"], "no split 'x'; --split can be"),
        ("guesses", ["--protocol=x"], "--protocol=x: choose one of center_crop"),
        (
            "guesses",
            ["--data_name=mnist", "--data_dir=nowhere"],
            "--data_dir=nowhere: there is no such",
        ),
        ("guesses", ["--data_name=mnist", "--data_dir=docs"], "or choose --data_name=folder"),
        ("guesses", ["--data_name=mnist"], "needs a directory: --data_dir=DIR"),
        ("selectivity", [], "its first layer reads 1 channel(s)"),
    ],
    ids=str,
)
def test_faults_are_named(look, run, tmp_path, command, arguments, message):
    code, _, err = look(command, run, f"--out={tmp_path}", *arguments)
    assert code == 2 and message in err, err
    assert len(err.splitlines()) <= 2


@pytest.fixture(scope="module")
def linear(tmp_path_factory, private_cache):
    """A linear classifier of the digits: a network of one layer."""
    return drawn_run(
        tmp_path_factory.mktemp("linear") / "run",
        "--config=configs/convnet.py",
        *("--config.model.stages=0", "--config.model.hidden_layers=0"),
        *("--config.data.name=digits", "--config.data.resize=16", "--config.data.crop=16"),
        *("--config.data.pad=0", "--config.data.validation_examples=77"),
    )


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        ("neighbours", [], "no hidden layer, for fc reads the image itself"),
        ("tsne", [], "no hidden layer"),
        ("invariance", [], "no hidden layer"),
        ("features", [], "no hidden layer"),
        ("responses", [], "no layer but the classifier has parameters"),
        ("occlusion", [], "no layer but pools makes maps"),
        ("occlusion", ["--layer=fc"], "makes no maps; no layer of this network makes maps"),
    ],
    ids=str,
)
def test_a_linear_classifier_has_no_such_layer(look, linear, tmp_path, command, arguments, message):
    test_faults_are_named(look, linear, tmp_path, command, arguments, message)


def test_a_linear_classifier_has_templates(look, linear, tmp_path):
    """As large as the image, in the picture and on the page."""
    code, printed, err = look("selectivity", linear, f"--out={tmp_path}")
    assert code == 0 and printed[0].startswith("kernels: 10 kernels, "), err
    code, printed, err = look("report", linear, "--limit=10", f"--out={tmp_path}")
    assert code == 0, err
    assert "10 kernels of 16 x 16 x 3; step 1" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_guesses_by_the_protocol_of_a_config(look, towers, tmp_path):
    """With its scales; the run's own without a config, which is the same one here."""
    dense = [*TINY, "--config.evaluation.protocol=dense"]
    asked = [[], TINY, [*TINY, "--protocol=ten_view"], dense]
    asked.append([*dense, "--config.evaluation.scales=(160,)"])
    found = []
    for number, arguments in enumerate(asked):
        code, (path,), err = look("guesses", towers, *arguments, f"--out={tmp_path / str(number)}")
        assert code == 0, err
        found.append(Path(path).read_bytes())
    assert found[0] == found[1] and len(set(found)) == 4


def test_images_are_drawn_without_their_padding(look, call, private_cache, tmp_path):
    """Grey photographs, which LeNet-5 sees with two black pixels around them."""
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (28, 28), "#999999").save(tmp_path / name)
    data = ["--config.data.name=folder", f"--config.data.dir={tmp_path}"]
    data += ["--config.data.validation_examples=1", "--config.model.head=linear"]
    run = drawn_run(tmp_path / "run", "--config=configs/lenet5.py", *data)
    code, printed, err = look("guesses", run, f"--out={tmp_path}")
    assert (code, printed) == (0, [str(tmp_path / "guesses.png")]), err
    asked = [f"--run={run}", f"--images={tmp_path / 'test'}", f"--out={tmp_path}", "--picture"]
    code, _, err = call("--mode=predict", *asked)
    assert code == 0, err
    for name in ("guesses", "predictions-1"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            above = np.asarray(picture.convert("L"))[: picture.height // 2]
        assert above.min() == 0x99 and (above == 0x99).sum() > 10_000, name


def test_which_maps_and_responses_are_shown():
    """The classifier is known by its name; the last maps are no pool's, whatever kind it is of."""
    from visualization.occlusion import last_maps
    from visualization.responses import responding

    lenet = opened_of("lenet5")
    assert responding(lenet) == ("c1", "s2", "c3", "s4", "c5", "f6")
    assert last_maps(lenet) == "c3"
    normed = opened_of("conv_relu_pool_fc", batch_norm=True)
    assert responding(normed) == ("norm1_1",)
    plain = opened_of("plain8", batch_norm=False)
    first = ("neuron1", "conv2_1/residual/neuron1", "conv2_1_neuron")
    assert responding(plain)[:3] == first and len(responding(plain)) == 7
    with pytest.raises(ConfigError, match="no layer but pools"):
        last_maps(opened_of("convnet", convolutions=0))


@pytest.mark.parametrize(
    "name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)]
)
def test_auxiliary_classifiers_are_no_layers(name):
    opened = opened_of(name)
    heads = opened.model.heads
    assert len(heads) > 1 and heads[0] in opened.layers
    assert not {head.split("/")[0] for head in heads[1:]} & set(opened.layers)
    with pytest.raises(ConfigError, match="no such layer"):
        opened.layer(heads[1].split("/")[0])


@pytest.fixture(scope="module")
def own(tmp_path_factory, private_cache):
    """A run on images in folders, whose test images have no labels, and a copy in which they do."""
    root = tmp_path_factory.mktemp("own")
    known = {f"{split}/{c}": 3 for split in ("train", "val") for c in "ab"}
    labelled = write_images(root / "labelled", known | {"test/a": 2, "test/b": 2})
    workdir = drawn_run(
        root / "run",
        "--config=configs/convnet.py:conv_relu_pool_fc",
        *("--config.model.kernels=2", "--config.data.name=folder"),
        f"--config.data.dir={write_images(root / 'unlabelled', known | {'test': 3})}",
        *("--config.data.resize=12", "--config.data.pad=0", "--config.data.crop=12"),
    )
    return workdir, labelled


def test_images_without_labels(look, own, tmp_path):
    """There is no loss towards a class that is not known."""
    asked = (own[0], "--split=test", f"--out={tmp_path}")
    code, printed, err = look("gradients", *asked)
    assert (code, printed) == (2, []) and "the images of test have no labels" in err
    code, _, err = look("invariance", *asked, "--count=2", "--steps=2")
    assert code == 0, err


def test_neighbours_in_another_split_are_all_found(look, own, tmp_path):
    """Images of equal numbers among them: they are others than the query."""
    workdir, root = own
    asked = (f"--data_dir={root}", "--among=validation", "--neighbours=6", "--queries=2")
    code, printed, err = look("neighbours", workdir, *asked, f"--out={tmp_path}")
    assert code == 0, err
    assert [line.count("(") for line in printed[:-1]] == [6, 6]


def test_norms_are_those_of_the_gradient(look, run, tmp_path):
    """Of the bias of the classifier the gradient is known: the mean of probability less truth.

    The gradient is computed in two parts.
    """
    from visualization import command_line, gradients
    from visualization.opening import open_run_or_file

    arguments = command_line.make_parser("").parse_args([str(run), "--batch_size=4"])
    opened = open_run_or_file(arguments)
    batches = list(opened.images(8, seed=1))
    batch = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    found = gradients.norms(opened, batch["image"], batch["label"])
    logits, record = opened.recorder([opened.last_hidden])(opened.inputs(batch["image"]))
    error = jax.nn.softmax(logits) - jax.nn.one_hot(batch["label"], logits.shape[1])
    assert opened.last_hidden == "ip1"
    bias = np.asarray(error).mean(axis=0)
    weights = np.einsum("bi,bo->io", np.asarray(record["ip1"]), np.asarray(error)) / 8
    expected = np.sqrt((bias**2).sum() + (weights**2).sum())
    np.testing.assert_allclose(found["ip2"], expected, rtol=1e-4)


def test_a_file_needs_a_dataset_by_name(look, shared_data, tmp_path):
    file = shared_data("weights/resnet20-12fca82f.th")
    asked = (file, "--network=resnet20", f"--out={tmp_path}")
    code, _, err = look("guesses", *asked)
    assert code == 2 and "--data_name=NAME" in err
    code, _, err = look("augmentation", *asked)
    assert code == 2 and "--config" in err


@pytest.mark.slow
def test_a_file_beside_a_dataset(look, shared_data, tmp_path):
    file = shared_data("weights/resnet20-12fca82f.th")
    asked = (file, "--network=resnet20", f"--out={tmp_path}")
    tfds = (f"--data_dir={shared_data('tfds', 'cifar10')}", "--data_name=cifar10")
    code, _, err = look("guesses", *asked, *tfds)
    assert code == 0, err
