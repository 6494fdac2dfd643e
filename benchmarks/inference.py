"""Speed of inference beside PyTorch's: the same networks, images in memory.

    python -m benchmarks.inference [--quick] [--networks alexnet ...] [--batch=N]
        [--dtype=float32|bfloat16]

All sides get normalised images, and hold images and parameters in the dtype of the computation.
PyTorch's two sides, eager and compiled, are channels_last and in inference mode. Each side is a
process of its own, and they take turns. `ratio` is our speed over that of PyTorch's faster side.
"""

from benchmarks import sides, workload


def main() -> None:
    """Measures and prints."""
    sides.main(
        "inference",
        "infer",
        {
            "ours": workload.our_inference,
            "eager": workload.their_inference,
            "compiled": workload.their_inference,
        },
        batches=workload.BATCHES,
        flops=lambda network: 2 * workload.multiply_adds(network),
        description=__doc__.splitlines()[0],
    )


if __name__ == "__main__":
    main()
