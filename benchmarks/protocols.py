"""Images per second of the papers' test protocols, photographs read from files.

    python -m benchmarks.protocols [--quick] [--data=DIR] [--only CONFIG ...]

Each row is `main.py --mode=evaluate` with random weights on photographs of `--data` (default:
`VISION_MODELS_DATA`): reading, decoding, cropping, the network and the averages. The command runs
on a few photographs until nothing is left to compile, then on them and on several copies of each.
The difference in time is that of the additional images alone: what a command costs once (imports,
opening the dataset and the weights, tracing) is not in it. There is no peer: no other project has
these protocols.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.dense import photographs

# Config, its network, protocol, photographs, copies of each in the longer of the two runs.
ROWS = (
    ("alexnet", "alexnet", "center_crop", 48, 16),
    ("alexnet", "alexnet", "ten_view", 16, 4),
    ("alexnet", "alexnet", "overfeat", 8, 4),
    ("vgg:d", "vgg_d", "center_crop", 8, 16),
    ("vgg:d", "vgg_d", "dense", 8, 4),
    ("googlenet", "googlenet", "center_crop", 24, 16),
    ("googlenet", "googlenet", "ten_view", 8, 4),
    ("googlenet", "googlenet", "crops_144", 4, 4),
    ("resnet:50", "resnet50", "center_crop", 24, 16),
    ("resnet:50", "resnet50", "ten_view", 8, 4),
    ("resnet:50", "resnet50", "multi_scale", 4, 4),
)


def random_weights(name: str, path: Path) -> None:
    """Writes a file of a network whose parameters NumPy draws, which takes seconds."""
    import jax
    import numpy as np
    from flax import nnx

    import vision_models
    from vision_models import weights
    from vision_models.functional import variables

    rng = np.random.default_rng(0)

    def drawn(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        deviation = (2 / max(int(np.prod(leaf.shape[:-1])), 1)) ** 0.5
        return rng.normal(0, deviation, leaf.shape).astype(leaf.dtype)

    abstract = nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0)))
    params, statistics = variables(abstract)
    params = jax.tree.map(drawn, params)
    statistics = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), statistics)
    mean, deviation = np.full(3, 117, np.float32), np.full(3, 100, np.float32)
    images = {"mean": mean, "deviation": deviation}
    weights.save(path, name, {}, params, statistics, images)


def linked(data: Path, count: int, copies: int, place: Path) -> Path:
    """A directory of links to so many landscape photographs, in folders of their classes.

    Whole images are batched by orientation: those of one fill their batches.
    """
    from PIL import Image

    every = photographs(data)
    sizes = [Image.open(photograph).size for photograph in every]
    found = [file for file, (width, height) in zip(every, sizes, strict=True) if width > height]
    for number in range(min(count, len(found))):
        photograph = found[number * len(found) // count]
        folder = place / "val" / photograph.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for copy in range(copies):
            (folder / f"{copy}-{photograph.name}").symlink_to(photograph.resolve())
    return place


def evaluated(arguments: Sequence[str]) -> tuple[float, int]:
    """Runs the command: its seconds, and how many images it evaluated."""
    import main as command

    begin, said = time.perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command.main(["main.py", "--mode=evaluate", *arguments])
    seconds = time.perf_counter() - begin
    if code:
        sys.exit(said.getvalue())
    return seconds, json.loads(said.getvalue().strip().splitlines()[-1])["examples"]


def measured(
    config: str, name: str, protocol: str, count: int, copies: int, data: Path, place: Path
) -> report.Row:
    """Measures a row of `ROWS`, with photographs of `data` and files in `place`."""
    weights = place / f"{name}.safetensors"
    if not weights.exists():
        random_weights(name, weights)
    path, _, variant = config.partition(":")
    arguments = [
        f"--config=configs/{path}.py{':' * bool(variant)}{variant}",
        f"--config.data.cache_dir={place / 'cache'}",
        f"--config.init_from={weights}",
        f"--config.evaluation.protocol={protocol}",
        f"--config.evaluation.batch_size={count}",
        f"--workdir={place / 'run'}",
    ]
    # Copies have the sizes of their photographs, so that both sets need the same programs.
    few, many = (
        f"--config.data.dir={linked(data, count, number, place / f'{name}-{protocol}-{number}')}"
        for number in (1, copies)
    )
    for directory in (few, many):
        evaluated([*arguments, directory])
    shorter, images_of_few = evaluated([*arguments, few])
    longer, images = evaluated([*arguments, many])
    additional = images - images_of_few
    return report.row(
        f"evaluate_{protocol}/{name}",
        "images/s",
        additional / (longer - shorter),
        None,
        device=report.device_name(),
        config=config,
        photographs=additional,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer photographs")
    parser.add_argument("--data", type=Path, default=os.environ.get("VISION_MODELS_DATA"))
    configs = list(dict.fromkeys(config for config, *_ in ROWS))
    parser.add_argument("--only", nargs="+", choices=configs, default=configs, help="rows of these")
    flags = parser.parse_args()
    if flags.data is None:
        parser.error("--data=DIR, or the variable VISION_MODELS_DATA, names the photographs")
    rows = []
    try:
        with tempfile.TemporaryDirectory() as place:
            for config, name, protocol, count, copies in ROWS:
                if config in flags.only:
                    some, data = -(-count // 4) if flags.quick else count, Path(flags.data)
                    row = measured(config, name, protocol, some, copies, data, Path(place))
                    rows.append(row)
                    print(f"{row['name']}: {row['ours']} images/s", file=sys.stderr, flush=True)
    finally:  # what was measured is kept
        report.show(rows)


if __name__ == "__main__":
    main()
