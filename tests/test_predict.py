"""Guesses for photographs, by runs and weights files, without any dataset."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.runs import TINY, drawn_run

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose weights are exported, and whose data are elsewhere by now."""
    import main

    workdir = drawn_run(tmp_path_factory.mktemp("predict") / "run", *TINY)
    assert main.main(["main.py", *TINY, f"--workdir={workdir}", "--mode=export"]) == 0
    return workdir


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for number, name in enumerate(["a.jpg", "b,c.png", "deeper/d.jpg"]):
        pixels = rng.integers(0, 256, (4, 5 + number, 3), np.uint8)
        Image.fromarray(pixels).resize((90, 70), Image.BICUBIC).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "@eaDir").mkdir()  # where a disk station keeps its thumbnails
    shutil.copy(tmp_path / "in" / "a.jpg", tmp_path / "in" / "@eaDir" / "thumbnail.jpg")
    return tmp_path / "in"


def predicted(call, out, *arguments):
    code, said, err = call("--mode=predict", f"--out={out}", *arguments)
    assert code == 0, err
    lines = (out / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], said, err


def test_five_guesses_for_each_image(call, run, photographs, tmp_path):
    found, said, err = predicted(call, tmp_path / "out", f"--run={run}", f"--images={photographs}")
    assert "not used: 1 *.txt (./notes.txt)" in err
    assert [line["image"] for line in found] == [
        str(photographs / name) for name in ("a.jpg", "b,c.png", "deeper/d.jpg")
    ]
    for line in found:
        assert len(line["guesses"]) == 5
        assert all(guess.keys() == {"class", "words", "probability"} for guess in line["guesses"])
        chances = [guess["probability"] for guess in line["guesses"]]
        assert chances == sorted(chances, reverse=True) and 0.5 < sum(chances) <= 1
        assert line["image"] in said
    one, _, _ = predicted(call, tmp_path, f"--run={run}", f"--images={photographs / 'b,c.png'}")
    assert one[0]["guesses"][0]["class"] == found[1]["guesses"][0]["class"]
    two = f"--images={photographs / 'a.jpg'},{photographs / 'deeper'}"
    both, _, _ = predicted(call, tmp_path, f"--run={run}", two)
    assert [line["image"] for line in both] == [found[0]["image"], found[2]["image"]]
    many = f"--images={','.join([str(photographs / 'a.jpg')] * 130)}"
    assert len(many) > 4096  # the longest path
    all_of_them, _, _ = predicted(call, tmp_path, f"--run={run}", many)
    assert [line["image"] for line in all_of_them] == [found[0]["image"]]


@pytest.mark.parametrize("protocol", ["center_crop", "ten_view"])
def test_an_exported_file_predicts_as_its_run_does(call, run, photographs, tmp_path, protocol):
    """It says its network, its classes, how images are cropped and what is subtracted."""
    file = shutil.copy(run / "weights.safetensors", tmp_path / "elsewhere.safetensors")
    asked = (f"--images={photographs}", f"--protocol={protocol}")
    by_run, _, _ = predicted(call, tmp_path / "run", f"--run={run}", *asked)
    by_file, _, _ = predicted(call, tmp_path / "file", f"--run={file}", *asked)
    assert by_file == by_run


def test_the_protocol_of_a_config_is_obeyed(call, run, photographs, tmp_path):
    """By whichever name it is given, with its scales; without a config, the run's own."""
    asked = [f"--run={run}", f"--images={photographs / 'a.jpg'}"]

    def probabilities(*arguments):
        (found,), _, err = predicted(call, tmp_path, *asked, *arguments)
        assert "has no effect" not in err
        return [guess["probability"] for guess in found["guesses"]]

    own = probabilities()
    ten = probabilities("--protocol=ten_view")
    assert own != ten == probabilities(*TINY, "--config.evaluation.protocol=ten_view")
    dense = probabilities(*TINY, "--config.evaluation.protocol=dense")
    scaled = [*TINY, "--config.evaluation.scales=(160,)"]
    larger = probabilities(*scaled, "--protocol=dense")
    assert len({tuple(own), tuple(ten), tuple(dense), tuple(larger)}) == 4
    scaled.append("--config.evaluation.protocol=dense")
    assert larger == probabilities(*scaled)
    averaged = probabilities(*scaled, "--config.evaluation.dense_average=probabilities")
    assert averaged not in (larger, dense, own)
    both = ["--protocol=dense", "--config.evaluation.protocol=dense"]
    code, _, err = call("--mode=predict", *asked, *TINY, *both)
    assert code == 2 and "leave one of them out" in err


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("dense", "crops_144", "overfeat")]


@pytest.mark.parametrize("protocol", ["center_crop", *SLOW])
def test_figures_of_eight(call, run, photographs, tmp_path, protocol):
    """By any protocol, also of whole images; the guesses are those of a call without figures."""
    for number in range(6):
        shutil.copy(photographs / "a.jpg", photographs / f"{number}.jpg")
    asked = (f"--run={run}", f"--images={photographs}", f"--protocol={protocol}")
    found, said, _ = predicted(call, tmp_path, *asked, "--picture")
    figures = [str(tmp_path / f"predictions-{number}.png") for number in (1, 2)]
    assert [line for line in said.splitlines() if line in figures] == figures
    for figure, columns in zip(figures, (4, 1), strict=True):
        with Image.open(figure) as image:
            assert image.width == 210 * columns
            assert np.ptp(np.asarray(image.convert("L"))) > 50
    alone, said, _ = predicted(call, tmp_path / "alone", *asked)
    assert alone == found and "predictions-" not in said


def test_numbers_are_drawn_as_classes(tmp_path):
    """Where classes have no names, 7 is drawn as `class 7`; elsewhere 7 is a name."""
    from visualization import guesses

    image = np.zeros((8, 8, 3), np.uint8)

    def drawn(name, named):
        draw = guesses.drawer(tmp_path, named=named)
        assert draw(image, [{"class": name, "words": name, "probability": 0.5}]) is None
        return draw(None, []).read_bytes()

    assert drawn("7", named=False) == drawn("class 7", named=True) != drawn("7", named=True)


def test_what_cannot_be_read_is_left_out_and_said(call, run, photographs, tmp_path):
    (photographs / "broken.jpg").write_bytes((photographs / "a.jpg").read_bytes()[:300])
    found, _, err = predicted(call, tmp_path, f"--run={run}", f"--images={photographs}")
    assert len(found) == 3 and "broken.jpg" in err
    code, _, err = call(
        "--mode=predict", f"--run={run}", f"--images={photographs / 'broken.jpg'}",
        f"--out={tmp_path}",
    )  # fmt: skip
    assert code == 2 and "broken.jpg" in err and "nothing was predicted" in err


def test_a_photograph_is_seen_as_evaluation_sees_it(call, run, photographs, tmp_path):
    """The square that the stream of a folder gives, bit for bit."""
    from configs.alexnet import get_config
    from evaluation.protocols import Images
    from input_pipeline import open_data, pixels_of, read_photograph

    data = get_config().data
    data.name, data.dir, data.validation_examples = "folder", str(tmp_path / "classes"), 1
    (tmp_path / "classes").mkdir()
    for name in "ab":
        shutil.copytree(photographs / "deeper", tmp_path / "classes" / name)
    data = open_data(data, tmp_path / "cache")
    (batch,) = data.evaluation("validation", Images(40, 3), batch_size=1)
    content = read_photograph(photographs / "deeper" / "d.jpg")
    np.testing.assert_array_equal(pixels_of(content, Images(40, 3), "d"), batch["image"][0])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--run=RUN"], "needs --run=RUN_OR_WEIGHTS_FILE and --images="),
        (["--run=RUN", "--images=nothing.jpg"], "--images=nothing.jpg: no such file"),
        (["--run=nowhere", "--images=IMAGES"], "nowhere: there is no such file"),
        (["--run=RUN", "--images=IMAGES", "--protocol=x"], "choose one of center_crop"),
        (["--run=EMPTY", "--images=IMAGES"], "no run with a checkpoint"),
        (["--run=RUN", "--images=EMPTY"], "no images in this directory"),
        (["--run=RUN", "--images=IMAGES", "--distributed"], "--mode=predict is for one process"),
        (["--run=RUN", "--images=IMAGES", "--config.seed=1"], "no --config"),
        (["--run=RUN", "--images=IMAGES,gs://b/c"], "--images=gs://b/c: a URL"),
        (["--run=RUN", "--images=IMAGES", "--protocol="], "--protocol=: an empty text names"),
        (["--run=RUN", "--images=IMAGES", "--picture=yes"], "flag --picture=yes"),
    ],
    ids=str,
)
def test_faults_are_named(call, run, photographs, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {"RUN": run, "IMAGES": photographs, "EMPTY": tmp_path / "empty"}
    written = arguments
    for name, place in places.items():
        written = [a.replace(f"={name}", f"={place}") for a in written]
    code, _, err = call("--mode=predict", f"--out={tmp_path}", *written)
    assert code == 2 and message in err, err
    assert len(err.splitlines()) <= 2


def test_weights_of_others_need_a_network(call, shared_data, photographs, tmp_path):
    """A published ResNet-20, whose preprocessing comes with what PyTorch's files are."""
    file = f"--run={shared_data('weights/resnet20-12fca82f.th')}"
    images = f"--images={photographs / 'a.jpg'}"
    code, _, err = call("--mode=predict", file, images, f"--out={tmp_path}")
    assert code == 2 and "--network=NAME" in err
    code, _, err = call("--mode=predict", file, images, f"--out={tmp_path}", "--network=resnet21")
    assert code == 2 and "--network=resnet21: no such network; did you mean" in err
    named, _, err = predicted(call, tmp_path, file, images, "--network=resnet20")
    assert "does not say what its classes are called" in err
    by_config, _, _ = predicted(
        call, tmp_path, file, images, "--config=configs/cifar10.py:resnet20",
        "--config.init_preprocessing=torchvision",
    )  # fmt: skip
    assert named[0]["guesses"][0]["class"] == by_config[0]["guesses"][0]["class"]


def test_a_costly_protocol_of_a_run_is_said_with_a_cheaper_one(call, run, photographs, tmp_path):
    """50 views, as the run was to be evaluated; whoever asks for them is told nothing."""
    costly = shutil.copytree(run, tmp_path / "costly")
    config = json.loads((costly / "config.json").read_text())
    config["config"]["evaluation"]["protocol"] = "multi_crop"
    (costly / "config.json").write_text(json.dumps(config))
    asked = (f"--run={costly}", f"--images={photographs / 'a.jpg'}")
    by_default, _, err = predicted(call, tmp_path / "a", *asked)
    assert "50 views of each image" in err and "--protocol=center_crop" in err
    found, _, err = predicted(call, tmp_path / "b", *asked, "--protocol=multi_crop")
    assert found == by_default and "views of each image" not in err
