"""The test error of CIFAR-10's ResNet-20 after a short training, beside PyTorch's.

    python -m benchmarks.cifar10_error [--quick] [--data=DIR] [--epochs=3] [--seeds 0 1 2]

DIR (by default $VISION_MODELS_DATA/tfds) is where TFDS prepared cifar10.

Both sides train He et al.'s network by the recipe of configs/cifar10.py, for --epochs instead of
64,000 steps; the rate drops at half and at three quarters of them. Our side is main.py. PyTorch's
side is written here, with its own augmentation and order. It trains on the same 45,000 images: the
mean image subtracted, 4 pixels of padding, a random crop and flip, batches of 128 with BatchNorm
over groups of 64, rate .1, momentum .9, weight decay .0001 on all parameters. It computes on the
CPU, ours on JAX's device, which does not matter to an error.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, sides, torch_networks, turns


def network() -> Any:
    """ResNet-20 with shortcuts of option A, in PyTorch: 269,722 parameters."""
    import torch
    from torch import nn

    class GhostBatchNorm(nn.BatchNorm2d):
        """BatchNorm that normalises each half of a training batch by itself, as two GPUs do.

        The running statistics, which only evaluation uses, are updated twice per step.
        """

        def forward(self, x: Any) -> Any:
            if not self.training:
                return super().forward(x)
            return torch.cat([super(GhostBatchNorm, self).forward(part) for part in x.split(64)])

    model = torch_networks.resnet20(10, GhostBatchNorm)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return model


def load(directory: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [n, 32, 32, 3] and labels int [n] of each of the splits `train` and `test`."""
    import input_pipeline
    from input_pipeline import decode

    dataset, splits = input_pipeline.open_dataset("cifar10", directory), {}
    for name in ("train", "test"):
        examples = dataset.examples(name)
        images, labels = [], []
        for index in range(examples.count):
            content, label = examples.read(index)
            images.append(decode.pixels(content) if isinstance(content, bytes) else content)
            labels.append(label)
        splits[name] = (np.stack(images), np.array(labels))
    return splits


def train(splits: dict[str, Any], epochs: int, seed: int) -> float:
    """Trains with PyTorch; returns the test error, 0 to 1.

    Args:
      splits: from `load`.
      epochs: passes over the training images.
      seed: of parameters, order and augmentation.
    """
    import torch
    from torch.nn import functional as F

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    images, labels = splits["train"]
    mean = images.mean(axis=0, dtype=np.float64).astype(np.float32)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    mean_padded = np.pad(mean, ((4, 4), (4, 4), (0, 0)))
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.0001)
    total = round(epochs * len(images) / 128)
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [round(share * total) for share in (0.5, 0.75)]
    )

    def tensor(x: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).to(
            memory_format=torch.channels_last
        )

    order = np.concatenate([rng.permutation(len(images)) for _ in range(epochs + 1)])
    for step in range(total):
        chosen = order[step * 128 : (step + 1) * 128]
        batch = np.empty((128, 32, 32, 3), np.float32)
        for row, index in enumerate(chosen):
            y, x = rng.integers(0, 9, 2)
            crop = padded[index, y : y + 32, x : x + 32] - mean_padded[y : y + 32, x : x + 32]
            batch[row] = crop[:, ::-1] if rng.integers(2) else crop
        loss = F.cross_entropy(model(tensor(batch)), torch.from_numpy(labels[chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    images, labels = splits["test"]
    wrong = 0
    with torch.no_grad():
        for first in range(0, len(images), 500):
            scores = model(tensor(images[first : first + 500] - mean))
            guesses = scores.argmax(dim=1).numpy()
            wrong += int((guesses != labels[first : first + 500]).sum())
    return wrong / len(images)


def ours(directory: str, epochs: int, seed: int) -> float:
    """Trains with main.py, resuming an interrupted run; returns the test error, 0 to 1."""
    workdir = f"runs/cifar10_error-{epochs}-{seed}"
    command = [
        sys.executable, "main.py", "--config=configs/cifar10.py:resnet20",
        f"--config.data.dir={directory}", f"--config.seed={seed}", f"--workdir={workdir}",
        f"--config.total_epochs={epochs}",
        f"--config.optimizer.drop_epochs=({0.5 * epochs}, {0.75 * epochs})",
    ]  # fmt: skip
    root = Path(__file__).parent.parent
    for mode in ("train", "evaluate"):
        subprocess.run([*command, f"--mode={mode}"], check=True, cwd=root, stdout=sys.stderr)
    return float(json.loads((root / workdir / "evaluation.json").read_text())["top1_error"])


def main() -> None:
    """Trains both sides with each seed and prints their errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one epoch, one seed")
    parser.add_argument("--data", help="where TFDS prepared cifar10")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, nargs="+")
    arguments = parser.parse_args()
    arguments.epochs = arguments.epochs or (1 if arguments.quick else 3)
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    if arguments.data is None:
        if "VISION_MODELS_DATA" not in os.environ:
            parser.error("--data=DIR, or the variable VISION_MODELS_DATA, names the dataset")
        arguments.data = str(Path(os.environ["VISION_MODELS_DATA"], "tfds").absolute())
    splits, rows = load(arguments.data), []
    device, with_peer = turns.run_apart(report.device_name), sides.has_peer("cpu")
    for seed in arguments.seeds:
        error = ours(arguments.data, arguments.epochs, seed)
        peer = train(splits, arguments.epochs, seed) if with_peer else None
        rows.append(
            report.row(
                "cifar10_error/resnet20", "error", error, peer, device=device,
                peer_name="PyTorch" if with_peer else "", epochs=arguments.epochs, seed=seed,
            )
        )  # fmt: skip
    report.show(rows)


if __name__ == "__main__":
    main()
