"""What all tests share: CPU devices, a private cache, image folders, real data if it is there."""

import atexit
import functools
import os
import shutil
import signal
import subprocess
import tempfile

# All before anything imports JAX. Where there are accelerators, the tests leave them alone unless
# they are named: two processes at a time would each reserve most of their memory.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's own passes run as ever; LLVM compiles what they make at a lower level here, in half of the
# time.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=1 --xla_force_host_platform_device_count=4 "
    + os.environ.get("XLA_FLAGS", "")
)
# The same programs are needed over and over, in this process and in those that it starts: each
# is compiled once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="vision_models_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
# Photographs, CIFAR-10, MNIST, weights: what is there of them.
REAL_DATA = Path(os.environ.get("VISION_MODELS_DATA", ROOT.parent / "shared" / "data"))

# What nohup, or a shell that runs this in the background, has the tests ignore, the processes that
# they start would ignore as well.
_HEARD = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
for _name, _handler in _HEARD.items():
    if signal.getsignal(getattr(signal, _name, signal.SIGINT)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)


def pytest_configure(config):
    """A quick test's slow cases are asked for as all slow tests are."""
    if config.option.markexpr == "quick":
        config.option.markexpr = "quick and not slow"


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Mean images and indices of the tests stay out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def part_of(directory: Path, name: str, *inside: str) -> Path:
    """A file or folder of real data; without it, or what is to be inside, the test is skipped."""
    for path in (directory / name, *(directory / name / part for part in inside)):
        if not path.exists():
            pytest.skip(f"{path} is not there; VISION_MODELS_DATA names the directory of real data")
    return directory / name


@pytest.fixture(scope="session")
def shared_data():
    """A function (name, *inside) -> path of a part of the real data that CONTRIBUTING.md lists."""
    return functools.partial(part_of, REAL_DATA)


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        import main  # where JAX is not needed, it is not imported

        code = main.main(["main.py", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write_images(
    root: Path, counts: dict[str, int], seed: int = 0, size: tuple[int, int] | None = None
) -> Path:
    """Class folders of small JPEGs: {"train/cat": 3} makes root/train/cat/0.jpg to 2.jpg."""
    rng = np.random.default_rng(seed)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            width, height = size or rng.integers(20, 50, 2)
            coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
            image = Image.fromarray(coarse).resize((int(width), int(height)), Image.BICUBIC)
            image.save(root / folder / f"{number}.jpg", quality=95)
    return root


@pytest.fixture
def imagenet_folder(tmp_path: Path) -> Path:
    """An ILSVRC tree of three synsets: 10 training and 5 validation images."""
    counts = {"n01440764": 4, "n02123597": 3, "n15075141": 3}
    validation = {"n01440764": 2, "n02123597": 2, "n15075141": 1}
    return write_images(
        tmp_path / "imagenet",
        {f"train/{k}": v for k, v in counts.items()}
        | {f"val/{k}": v for k, v in validation.items()},
    )


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1.5 MB, and a function that makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", *options, "tmpfs", str(place)], capture_output=True
        )

    if mount("size=1536k").returncode:
        pytest.skip("mounting a small tmpfs needs the rights of root")
    yield place, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", str(place)], check=True)
