"""The work of the benchmarks of networks: training steps and inference, ours and PyTorch's."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import turns

CLASSES = {"cifar10_four_layer": 10, "resnet20": 10}
CROPS = {"cifar10_four_layer": 32, "resnet20": 32}
# Batch size on a CPU, and on an accelerator.
BATCHES = {
    "alexnet": (32, 512),
    "vgg_d": (8, 256),
    "googlenet": (16, 512),
    "resnet50": (8, 256),
    "cifar10_four_layer": (128, 1024),
    "resnet20": (128, 1024),
}
# JAX's platforms -> PyTorch's device of the same kind; on others the two cannot be compared.
TORCH_DEVICES = {"cpu": "cpu", "gpu": "cuda"}
# Weight of the loss of each auxiliary classifier.
ASIDE = 0.3


@dataclasses.dataclass(frozen=True)
class Case:
    """One contestant's work.

    Attributes:
      side: `ours`, `eager` or `compiled` (PyTorch's), or another one that a benchmark defines.
      name: of a network or a layer.
      batch: batch size.
      dtype: of the computation, float32 or bfloat16; parameters are float32.
      seconds: duration of each measurement.
      platform: of JAX's device, which is ours; PyTorch takes one of the same kind.
    """

    side: str
    name: str
    batch: int
    dtype: str
    seconds: float
    platform: str = "cpu"

    @property
    def classes(self) -> int:
        """Number of classes."""
        return CLASSES.get(self.name, 1000)

    @property
    def crop(self) -> int:
        """Pixels of an image's side."""
        return CROPS.get(self.name, 224)


def multiply_adds(network: str) -> int:
    """Multiply-adds of the forward pass of one image."""
    from flax import nnx

    import vision_models
    from vision_models.analysis import multiply_adds as count

    classes = Case("ours", network, 1, "float32", 0).classes
    return count(
        nnx.eval_shape(lambda: vision_models.create(network, num_classes=classes, rngs=nnx.Rngs(0)))
    )


def parameters(name: str) -> int:
    """Number of trainable parameters of a network."""
    import jax

    shapes = jax.eval_shape(
        pure_network(Case("ours", name, 1, "float32", 0)).init, jax.random.key(0)
    )
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes[0]))


def training_batch(case: Case) -> dict[str, np.ndarray]:
    """A batch of noise, with the arrays that the input pipeline yields."""
    rng, size = np.random.default_rng(0), case.batch
    return {
        "image": rng.integers(0, 256, (size, case.crop, case.crop, 3), np.uint8),
        "label": rng.integers(0, case.classes, size).astype(np.int32),
        "index": np.arange(size),
        "crop_offset": np.zeros((size, 2), np.int32),
        "flip": rng.integers(0, 2, size).astype(bool),
        "colour_shift": np.zeros((size, 3), np.float32),
        "colour_scale": np.ones(size, np.float32),
    }


def pure_network(case: Case) -> Any:
    """Our network, as pure functions."""
    import vision_models
    from vision_models.functional import functional

    return functional(
        lambda rngs: vision_models.create(case.name, num_classes=case.classes, rngs=rngs)
    )


def our_training(case: Case) -> tuple[Callable[[], None], Callable[[], None]]:
    """Our training on one device of each process.

    Returns:
      (work, finish): `work` begins one training step, `finish` waits for all that were begun.
    """
    import jax

    from devices import mesh as meshes
    from devices.xla import keep_memory
    from training.optimizer import Momentum, Rate
    from training.recipe import Recipe
    from training.step import init_state, make_train_step

    keep_memory()
    network = pure_network(case)
    processes = jax.process_count()
    mesh = meshes.make_mesh(network.towers, data=processes, tower=1)
    recipe = Recipe(
        rates=(Rate("", 1e-6),),
        batch_size=case.batch * processes,
        dtype=case.dtype,
        momentum=Momentum(0.9, 5e-4, decay_biases=True),
        auxiliary_weight=ASIDE,
    )
    step = make_train_step(network, recipe, mesh)
    batch = meshes.batch_placer(mesh)(training_batch(case))
    images = {
        "mean": meshes.replicate(mesh, np.full((case.crop, case.crop, 3), 110, np.float32)),
        "deviation": meshes.replicate(mesh, np.full(3, 60, np.float32)),
    }
    state = init_state(network, recipe, mesh)

    def work() -> None:
        nonlocal state
        state, _ = step(state, batch, images)

    def finish() -> None:
        jax.block_until_ready(state)

    return work, finish


def their_training(case: Case) -> tuple[Callable[[], None], Callable[[], None]]:
    """PyTorch's training: float32 images on the device, channels_last, fused SGD.

    Returns:
      (work, finish), as in `our_training`.
    """
    import torch
    from torch.nn import functional as F

    from benchmarks import torch_networks

    device = TORCH_DEVICES[case.platform]
    batch = training_batch(case)
    pixels = (batch["image"].astype(np.float32) - 110) / 60
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(batch["label"].astype(np.int64)).to(device)
    model = torch_networks.make(case.name, case.classes).to(device)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), 1e-6, momentum=0.9, weight_decay=5e-4, fused=True
    )
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    half = torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16")

    def loss_of(images: Any) -> Any:
        with half:
            logits = model(images)
            main, *aside = logits if isinstance(logits, list) else [logits]
            loss = F.cross_entropy(main, labels)
            for other in aside:
                loss = loss + ASIDE * F.cross_entropy(other, labels)
        return loss

    if case.side == "compiled":
        loss_of = torch.compile(loss_of)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(images).backward()
        optimizer.step()

    return work, torch.cuda.synchronize if device == "cuda" else lambda: None


def our_inference(case: Case) -> tuple[Callable[[], None], Callable[[], None]]:
    """Our inference.

    Returns:
      (work, finish): `work` begins the logits of a batch in memory, `finish` waits for them.
    """
    import jax
    import jax.numpy as jnp

    from devices.xla import compiler_options, keep_memory

    keep_memory()
    network = pure_network(case)
    params, statistics = jax.jit(network.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf.astype(case.dtype), params)
    pixels = (training_batch(case)["image"].astype(np.float32) - 110) / 60
    images = jax.device_put(jnp.asarray(pixels, case.dtype))
    apply = jax.jit(network.apply, compiler_options=compiler_options())
    logits: Any = None

    def work() -> None:
        nonlocal logits
        logits = apply(params, statistics, images)

    def finish() -> None:
        jax.block_until_ready(logits)

    return work, finish


def their_inference(case: Case) -> tuple[Callable[[], None], Callable[[], None]]:
    """PyTorch's inference.

    Returns:
      (work, finish), as in `our_inference`.
    """
    import torch

    from benchmarks import torch_networks

    device = TORCH_DEVICES[case.platform]
    dtype = getattr(torch, case.dtype)
    pixels = (training_batch(case)["image"].astype(np.float32) - 110) / 60
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).to(device, dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    model = torch_networks.make(case.name, case.classes).eval().to(device, dtype)
    model = model.to(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    forward = torch.compile(model) if case.side == "compiled" else model

    def work() -> None:
        with torch.inference_mode():
            forward(images)

    return work, torch.cuda.synchronize if device == "cuda" else lambda: None


def measured(
    case: Case, made: tuple[Callable[[], None], Callable[[], None]], quick: bool
) -> Callable[[], turns.Measurement]:
    """Warms up a case; returns a function that measures `images_per_second` and `peak_bytes`."""
    work, finish = made
    for _ in range(2 if quick else 3):  # compiles; chooses algorithms
        work()
        finish()

    def measure() -> turns.Measurement:
        seconds = turns.timed(work, finish, case.seconds)
        return {"images_per_second": case.batch / seconds, "peak_bytes": peak_bytes(case)}

    return measure


def peak_bytes(case: Case) -> int:
    """Peak memory in bytes so far: the accelerator's, or this process's on a CPU."""
    if case.side not in ("eager", "compiled"):
        import jax

        stats = jax.local_devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] if stats else turns.resident_bytes()
    import torch

    if case.platform == "gpu":
        return torch.cuda.max_memory_allocated()
    return turns.resident_bytes()
