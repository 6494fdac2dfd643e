"""The mode of main.py that guesses what is in single images."""

import sys
from pathlib import Path
from typing import Any

from configs.command_line import CommandLine
from configs.common import ConfigError
from process import DONE

# Number of images that are predicted together.
_AT_ONCE = 16


def predict(flags: Any, arguments: CommandLine | None) -> int:
    """Prints five guesses for each image, and writes them to predictions.jsonl.

    Args:
      flags: `run`, `network`, `images`, `protocol`, `picture` and `out`.
      arguments: say, by a config, the protocol, and network and preprocessing of a weights file
        that does not; None for those of the run, the file or `network`.
    """
    import evaluation
    import input_pipeline
    import training
    from devices.xla import keep_compiled
    from visualization import guesses as drawn
    from visualization.weights import open_trained, protocol_of

    config = None if arguments is None else arguments.config
    if not flags.run or not flags.images:
        raise ConfigError(
            "--mode=predict needs --run=RUN_OR_WEIGHTS_FILE and --images=FILES_OR_DIRECTORIES, "
            "several with commas between them"
        )
    keep_compiled(input_pipeline.default_cache_dir() / "compiled")
    checkpoint = "latest" if config is None else config.evaluation.checkpoint
    trained = open_trained(Path(flags.run), flags.network, config, checkpoint)
    named_protocol = flags.protocol
    if arguments is not None:
        named_protocol = arguments.overrides.get("evaluation.protocol")
    chosen, scales, averaged = protocol_of(trained, named_protocol, config)
    class_names = training.class_names_of(trained)
    named = trained.class_names is not None or trained.imagenet
    if not named:
        print(f"note: {flags.run} does not say what its classes are called", file=sys.stderr)
    photographs = input_pipeline.find_photographs(flags.images)
    protocol, at_once, scores_of = training.predictor(
        trained, chosen, min(len(photographs), _AT_ONCE), scales, averaged
    )
    if protocol.count > 20 and not named_protocol:
        print(
            f"{protocol.count} views of each image, as this network's paper has it; one alone, "
            "sooner: --protocol=center_crop",
            file=sys.stderr,
        )
    read = 0
    draw = drawn.drawer(Path(flags.out or "."), named=named) if flags.picture else None
    with training.predictions_file(Path(flags.out or ".") / "predictions.jsonl") as write:
        for begin in range(0, len(photographs), at_once):
            forms = [look.images for look in protocol.looks]
            pixels = input_pipeline.readable(photographs[begin : begin + at_once], forms)
            if not pixels:
                continue
            for photograph, scores in zip(pixels, scores_of(list(pixels.values())), strict=True):
                guesses = evaluation.guesses(scores, class_names)
                image = input_pipeline.shown(photograph)
                write({"image": image, "guesses": guesses})
                print(drawn.in_words(image, guesses))
                if draw is not None:
                    drawing = forms[0].without_padding(pixels[photograph][0])
                    if picture := draw(drawing, guesses):
                        print(picture)
            read += len(pixels)
    if not read:
        raise input_pipeline.DataError("no image could be read; nothing was predicted")
    if draw is not None and (picture := draw(None, [])):
        print(picture)
    return DONE
