"""Writes a run, or other weights, in a form that other programs take.

    python -m effnetv2_jax.export runs/mine@best --format=onnx

RUN is a run's --workdir, also with @best or @STEP behind it, or whatever else predict's --weights
takes. onnx and stablehlo give one file that takes images, uint8 [B, S, S, 3], and returns logits;
timm, torchvision, keras and effnetv2_jax (our own format, for any model) give a folder with a model
card. Prints the path of what it wrote, by default NAME.onnx, NAME.stablehlo or NAME-FORMAT here,
NAME being the run's.
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

FILES = ("onnx", "stablehlo")
"""Formats of one file that computes by itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    options = _parser().parse_args(arguments)
    # Imported late, so that a mistyped option is answered at once.
    from effnetv2_jax.cli.errors import CommandError, complain
    from effnetv2_jax.cli.families import import_family
    from effnetv2_jax.models.registry import UnknownModelError
    from effnetv2_jax.outputs.checkpoints import CheckpointError
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.weights.errors import WeightsError
    from effnetv2_jax.weights.save import Target

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        if options.format not in (*FILES, *get_args(Target)):
            known = ", ".join((*FILES, *get_args(Target)))
            raise CommandError(f"--format must be one of {known}, not {options.format!r}")
        if options.image_size is not None and options.format not in FILES:
            raise CommandError(f"--image_size belongs to --format={' or '.join(FILES)}")
        for module in options.modules:
            import_family(module)
        startup.start("off")
        print(write(options))
    except UnknownModelError as error:
        return complain(CommandError(f"--model: {error}"))
    except (CommandError, WeightsError, CheckpointError) as error:
        return complain(error)
    except ImportError as error:  # A library that the format needs.
        return complain(WeightsError(str(error)))
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130
    return 0


def write(options: argparse.Namespace) -> Path:
    """Writes what the options say and returns its path."""
    from effnetv2_jax.weights.export import export_model, export_onnx
    from effnetv2_jax.weights.pretrained import load_pretrained
    from effnetv2_jax.weights.save import save_pretrained

    model, variables = load_pretrained(options.model, options.weights)
    path = Path(options.output or default_output(options.weights, options.format)).expanduser()
    match options.format:
        case "onnx":
            return export_onnx(path, model, variables, image_size=options.image_size)
        case "stablehlo":
            exported = export_model(model, variables, image_size=options.image_size)
            path.write_bytes(exported.serialize())
            return path
        case library:
            return save_pretrained(path, model, variables, library=library, license=options.license)


def default_output(weights: str, form: str) -> str:
    """Where weights are written if nobody says, such as `mine.onnx` for `runs/mine@best`."""
    last = weights.partition("@")[0].rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^\w.-]+", "-", last.removeprefix("workdir:")).removesuffix(".safetensors")
    return f"{name}.{form}" if form in FILES else f"{name}-{form}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m effnetv2_jax.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", metavar="RUN", help="a run, or other weights")
    parser.add_argument("--format", required=True, help="see above")
    parser.add_argument("--output", metavar="PATH", help="file or folder; replaced if it exists")
    parser.add_argument("--model", help="of weights that do not say which model they are for")
    parser.add_argument(
        "--image_size",
        type=int,
        metavar="S",
        help="height and width of the images (those of evaluation)",
    )
    parser.add_argument("--license", help="for the model card, such as apache-2.0")
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="imported first, since it registers a family of models",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
