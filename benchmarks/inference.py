"""Logits of images in memory beside PyTorch's: the same networks.

    python -m benchmarks.inference [--quick] [--networks alexnet ...] [--batch=N]
        [--dtype=float32|bfloat16]

Both sides get images that are normalised already, and hold images and parameters in the dtype of
the computation; PyTorch's, eager and compiled, are channels_last and in inference mode. Each is a
process of its own; they take turns. `ratio` is to the faster of PyTorch's two.
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
