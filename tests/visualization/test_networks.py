"""Networks side by side: their sizes, and the table, files and plots that say them."""

import csv
import itertools
import json

import matplotlib.pyplot as plt
import pytest

import vision_models
from claims import registry, results
from configs import papers
from configs.common import ConfigError
from configs.papers import CHALLENGES, PUBLISHED
from visualization import network_plots, networks

# Layers with weights as the papers count them; 48 of Inception-v3 as its users do.
LAYERS = {"lenet5": 7, "alexnet": 8, "vgg_d": 16, "resnet20": 20}
DEEP = {
    "googlenet": 22,
    "inception_v3": 48,
    "resnet50": 50,
    "preact_resnet152": 152,
    "nin_imagenet": 12,
}


@pytest.mark.parametrize(
    "name, layers",
    [*LAYERS.items(), *(pytest.param(*case, marks=pytest.mark.slow) for case in DEEP.items())],
)
def test_layers_on_the_longest_path(name, layers):
    assert networks.sizes_of(name).layers == layers


def test_what_is_held_at_once():
    """AlexNet: conv1's image and maps. ResNet-20: what a block reads, and a layer in and out."""
    first = 224 * 224 * 3 + 55 * 55 * 96
    pooled = 2 * 55 * 55 * 96  # response normalisation reads and makes conv1's maps
    assert networks.sizes_of("alexnet").held_bytes == 4 * max(first, pooled)
    assert networks.sizes_of("resnet20").held_bytes == 4 * 3 * 32 * 32 * 16


@pytest.mark.quick
def test_every_imagenet_network_once_in_order_of_year():
    names = networks.names(None)
    made = [vision_models.name_of(name, {}) for name in vision_models.list_models()]
    imagenet = {n for n in made if vision_models.default_options(n)["num_classes"] == 1000}
    assert set(names) == imagenet and len(names) == len(imagenet)
    years = [papers.year(name) for name in names]
    assert years == sorted(years) and (years[0], years[-1]) == (2012, 2016)
    published = {papers.network_of(*key) for key, p in PUBLISHED.items() if "imagenet" in p.data}
    assert published <= set(names)
    assert networks.names("vgg_d, alexnet,vgg_d") == ["alexnet", "vgg_d"]


def test_every_network_has_a_year():
    assert all(1998 <= papers.year(name) <= 2016 for name in vision_models.list_models())


@pytest.mark.parametrize(
    "chosen, said",
    [
        ("alexnet,vgg_f", "'vgg_f'; did you mean vgg_"),
        ("ResNet-50", "did you mean resnet50"),
        (",", "names none"),
        ("qqqq", "there are "),
    ],
)
def test_what_is_no_network(chosen, said):
    with pytest.raises(ConfigError, match=said):
        networks.names(chosen)


def test_a_table_its_files_and_plots(call, tmp_path):
    """The same numbers in all; AlexNet's memory by hand."""
    paths = {"csv": tmp_path / "new/all.csv", "json": tmp_path / "all.json", "out": tmp_path / "p"}
    flags = [f"--{name}={path}" for name, path in paths.items()]
    code, out, err = call("--mode=compare", "--networks=alexnet,lenet5", *flags)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["lenet5", "1998", "7"]
    assert lines[2].split()[:7] == ["alexnet", "2012", "8", "0.66", "725.07", "60.97", "724.41"]
    assert lines[2].split()[-4:] == ["40.70", "18.20", "ten_view", "imagenet2012"]
    assert "  lenet5: 0.95% top-1 error on mnist (trained network lenet5-mnist" in out
    with open(paths["csv"], newline="") as file:
        table = list(csv.DictReader(file))
    told = json.loads(paths["json"].read_text())
    for row, one in zip(table, told, strict=True):
        plain = {key: "" if one[key] is None else str(one[key]) for key in row if key != "ours"}
        assert plain == {key: value for key, value in row.items() if key != "ours"}
    alexnet = told[1]
    assert alexnet["neurons"] == 659_272 and alexnet["top1_error"] == 0.407
    activations = networks.sizes_of("alexnet").activation_bytes
    assert alexnet["training_bytes"] == 12 * 60_965_224 + 2 * 128 * activations
    assert [entry["config"] for entry in alexnet["published"]][:2] == [
        "alexnet",
        "alexnet:original",
    ]
    drawn = {path.name for path in paths["out"].iterdir()}
    assert drawn == {"networks_error.png", "networks_depth.png"}


def test_both_names_of_a_network_have_its_published_errors():
    one, other = networks.rows(["vgg_a", "vgg11"], {})
    assert (one.network, other.network) == ("vgg_a", "vgg11")
    assert one.published == other.published and one.paper.top5 == 10.4


def test_faults_of_flags_and_files(call, tmp_path):
    (tmp_path / "file").touch()
    one = "--networks=lenet5"
    for arguments, expected, said in [
        (["--networks=alexnte"], 2, "no network 'alexnte'; did you mean alexnet"),
        ([one, "--config=configs/lenet5.py"], 2, "takes no --config; networks are named by"),
        ([one, "--network=alexnet"], 2, "takes no --network; networks are named by --networks"),
        ([one, "--verify"], 2, "takes no --verify; it is for --mode=describe_data"),
        ([one, "--config.seed=1"], 2, "no --config for --config.seed=1 to override"),
        ([one, "--accelerator=v5e"], 2, "takes no --accelerator; it is for --mode=compile"),
        ([one, f"--csv={tmp_path}/x", f"--json={tmp_path}/x"], 2, "give each a file of its own"),
        ([one, f"--csv={tmp_path}"], 1, "is a directory; name a file with --csv"),
        ([one, f"--json={tmp_path / 'file' / 'x.json'}"], 1, "cannot be written"),
        ([one, f"--out={tmp_path / 'file'}"], 1, "cannot be written"),
    ]:
        code, out, err = call("--mode=compare", *arguments)
        assert (code, out) == (expected, ""), arguments
        assert said in err and "Traceback" not in err
    code, _, err = call("--config=configs/lenet5.py", "--mode=summary", "--csv=x.csv")
    assert code == 2 and "takes no --csv; it is for --mode=compare" in err


def test_what_claims_found_is_beside_what_was_published(tmp_path):
    claim = registry.find("lenet5-error")
    arm = {"mean": 0.93, "measure": "test error", "unit": "%", "paper": 0.95, "spread": 0.02,
           "values": {}, "curves": {}, "commands": []}  # fmt: skip
    told = {"claim": claim.id, "verdict": "confirmed", "digest": "", "runs": {}, "data": "mnist",
            "length": "20 epochs", "expected": [], "full": False, "seeds": 3, "seconds": 0,
            "arms": {"network": arm}}  # fmt: skip
    results.path_of(claim, full=False, results=tmp_path).write_text(json.dumps(told))
    found = results.of_published(registry.all_claims(), tmp_path)
    assert found.keys() == {("lenet5", "")}
    (row,) = networks.rows(["lenet5"], found)
    assert row.ours[0] == networks.Measured(
        pytest.approx(0.0093), "top1_error", "mnist", "claim lenet5-error, 20 epochs"
    )


def test_names_in_the_plot_lie_on_no_others():
    """Of all that was published for ImageNet, with sizes that are close together."""
    points = []
    for key, paper in PUBLISHED.items():
        if paper.data == "imagenet2012":
            name = papers.network_of(*key)
            size = 1_000_000 * (50 + len(points) // 4)
            points.append(
                network_plots.Point(name, size, size, paper.data, paper.views, *paper[1:3])
            )
    figure = network_plots.errors(points)
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == sum(point.top5 is not None for point in points)
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
    plt.close(figure)


def test_the_revolution_of_depth_has_a_bar_for_each_entry():
    figure = network_plots.depths(CHALLENGES)
    above, below = figure.axes
    assert [bar.get_height() for bar in above.patches] == [entry.top5 for entry in CHALLENGES]
    said = ["none", "none", "8", "8", "19", "22", "152"]
    assert [text.get_text() for text in below.texts] == said
    plt.close(figure)


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entry for entry in CHALLENGES if entry.network], ids=str)
def test_an_entrys_layers_are_its_networks(entry):
    assert networks.sizes_of(entry.network).layers == entry.layers
