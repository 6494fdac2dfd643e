"""Training steps beside PyTorch's: the same networks, data in memory.

    python -m benchmarks.train_step [--quick] [--networks alexnet ...] [--batch=N]
        [--dtype=float32|bfloat16]

Ours is the compiled step of `training`, on one device: normalisation of uint8 images, forward,
backward, metrics, the check for numbers that are not finite, and the update. PyTorch's two sides,
eager and compiled, get float32 images that are normalised already, channels_last, and make the
forward, backward and fused update. Each is a process of its own; they take turns. `ratio` is to
the faster of PyTorch's two. By default float32 on a CPU, bfloat16 with float32 parameters on an
accelerator.
"""

from benchmarks import sides, workload


def main() -> None:
    """Measures and prints."""
    sides.main(
        "train_step",
        "train",
        {
            "ours": workload.our_training,
            "eager": workload.their_training,
            "compiled": workload.their_training,
        },
        batches=workload.BATCHES,
        flops=lambda network: 6 * workload.multiply_adds(network),
        description=__doc__.splitlines()[0],
    )


if __name__ == "__main__":
    main()
