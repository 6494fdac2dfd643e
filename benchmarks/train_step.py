"""Speed of training steps beside PyTorch's: the same networks, data in memory.

    python -m benchmarks.train_step [--quick] [--networks alexnet ...] [--batch=N]
        [--dtype=float32|bfloat16]

Our side is the compiled step of `training` on one device: normalisation of uint8 images, forward
and backward pass, metrics, the check for non-finite values, and the update. PyTorch's two
sides, eager and compiled, get normalised float32 images, channels_last, and make the forward and
backward pass and the fused update. Each side is a process of its own, and they take turns. `ratio`
is our speed over that of PyTorch's faster side. The default dtype is float32 on a CPU, and bfloat16
with float32 parameters on an accelerator.
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
