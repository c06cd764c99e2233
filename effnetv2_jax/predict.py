"""Classifies pictures.

    python -m effnetv2_jax.predict --model=efficientnetv2-s --weights=in21k-ft1k cat.jpg folder/

Weights are a tag of the model's published ones (in1k, in21k, in21k-ft1k), hub:OWNER/REPO, or a
path: of a run's --workdir, of a folder that was saved, of a timm, torchvision or Keras file, of a
TensorFlow checkpoint. Where they say which model they are for, --model can be left out. A family
that is not of this package is registered by --import=MODULE.

Of a model of several labels --threshold=0.5 shows all classes that are as likely, each by itself;
for the weights of a run that measures average precision this is the default.

Millions of pictures, on many machines: --shard=3/64 takes every 64th from the third on, and with
--output=FILE --format=json the same command goes on where it was stopped.
"""

import argparse
import contextlib
import csv
import functools
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from effnetv2_jax.system.callable_module import make_callable

if TYPE_CHECKING:
    from effnetv2_jax.models.protocol import Model

make_callable(__name__, "effnetv2_jax.api", "predict")


class Guess(NamedTuple):
    """One of the classes that a picture may belong to."""

    label: int
    name: str
    probability: float


class Prediction(NamedTuple):
    """What a model makes of a picture."""

    path: str
    guesses: tuple[Guess, ...]
    """Best first; empty if the picture could not be read, or no class is likely enough."""
    error: str = ""
    """Why it could not be read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 1 if a picture could not be read."""
    options = _parser().parse_args(arguments)
    try:
        return _classify(options)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130


def _classify(options: argparse.Namespace) -> int:
    # Imported late, so that a mistyped option is answered at once.
    from effnetv2_jax.cli.errors import CommandError, complain
    from effnetv2_jax.cli.families import import_family
    from effnetv2_jax.cli.shards import continued, take_shard
    from effnetv2_jax.data import DataError
    from effnetv2_jax.data.sources.unlabelled import list_pictures
    from effnetv2_jax.parallel import startup
    from effnetv2_jax.weights.errors import WeightsError

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    # Which pictures cannot be read is part of the result.
    logging.getLogger("effnetv2_jax.data.batches").setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # A path may be any bytes.
    unread = 0
    try:
        if options.output and options.format != "json":
            raise CommandError("--output needs --format=json, of which it reads what is done")
        for module in options.modules:
            import_family(module)
        paths: Sequence[str] = list_pictures(options.pictures)
        if options.shard:
            paths = take_shard(paths, options.shard)
        with contextlib.ExitStack() as stack:
            stream: TextIO = sys.stdout
            if options.output:
                stream, paths = stack.enter_context(continued(Path(options.output), paths))
            startup.start("off")
            model, variables = _load(options)
            threshold = options.threshold
            if threshold is None and (threshold := threshold_of(options.weights)) is not None:
                said = f"several labels: classes with a probability of {threshold:g} or more"
                print(f"{said} (--threshold)", file=sys.stderr)
            predictions = predict(
                model,
                variables,
                paths,
                top=options.top,
                threshold=threshold,
                batch_size=options.batch_size,
            )
            write = _Writer(options.format, stream, threshold)
            stack.enter_context(contextlib.closing(predictions))
            advance = stack.enter_context(_progress(len(paths)))
            for prediction in predictions:
                unread += bool(prediction.error)
                write(prediction)
                advance()
            write.close()
    except (CommandError, DataError, WeightsError) as error:
        return complain(error)
    except BrokenPipeError:  # The reader, such as `head`, has seen enough.
        # Nor must Python try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return int(unread > 0)


def predict(
    model: "Model",
    variables: Mapping[str, Any],
    paths: Sequence[str],
    *,
    top: int = 5,
    threshold: float | None = None,
    batch_size: int = 32,
    threads: int | None = None,
) -> Generator[Prediction, None, None]:
    """Classifies picture files on all devices of this process, decoding ahead in threads.

    Args:
      model, variables: as `load_pretrained` returns them.
      paths: files of any format that training reads.
      top: guesses for each picture.
      threshold: for models of several labels: all classes whose own probability, the sigmoid of
        their logit, is at least this are the guesses, in place of the `top` of the softmax.
      batch_size: pictures per step, rounded up to a multiple of the devices; not more than there
        are pictures.
      threads: that decode; None takes one per CPU core.

    Yields:
      A prediction for each path, in their order.

    Raises:
      ValueError: the model has no classifier.
    """
    if not paths:
        return
    from effnetv2_jax.models.protocol import gives_features

    if gives_features(model) or not model.num_classes:
        raise ValueError("the model has no classifier, and so no classes to tell apart")
    import jax
    import jax.numpy as jnp

    from effnetv2_jax.augment.batch import normalize
    from effnetv2_jax.config.experiment import DataConfig
    from effnetv2_jax.data import EvalExamples, Unreadable, make_batches
    from effnetv2_jax.data.sources.unlabelled import FilesSource
    from effnetv2_jax.parallel.compiler import compiler_options
    from effnetv2_jax.parallel.mesh import make_mesh, put_batch, replicated

    preprocessing, mesh = model.preprocessing, make_mesh(jax.local_devices())
    top = model.num_classes if threshold is not None else min(top, model.num_classes)
    likely = 0.0 if threshold is None else threshold
    probability = jax.nn.softmax if threshold is None else jax.nn.sigmoid
    batch_size = -(-min(batch_size, len(paths)) // mesh.size) * mesh.size
    unreadable = Unreadable(len(paths))
    variables = jax.device_put(variables, replicated(mesh))

    @functools.partial(jax.jit, compiler_options=compiler_options(mesh.devices.flat[0]))
    def best(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = normalize(images, preprocessing.mean, preprocessing.std, model.dtype)
        logits: Any = model.apply(variables, images, train=False)
        return jax.lax.top_k(probability(logits.astype(jnp.float32)), top)

    def predictions(start: int, mask: np.ndarray, found: Any) -> Iterator[Prediction]:
        probabilities, labels = map(np.asarray, found)
        reasons = unreadable.reasons
        for row, path in enumerate(paths[start : start + batch_size]):
            if not mask[row]:
                yield Prediction(path, (), reasons[path])
                continue
            yield Prediction(
                path,
                tuple(
                    Guess(int(label), class_name(model, int(label)), float(probability))
                    for label, probability in zip(labels[row], probabilities[row], strict=True)
                    if probability >= likely
                ),
            )

    examples = EvalExamples(
        data=DataConfig(threads=threads), preprocessing=preprocessing, batch_size=batch_size
    )
    batches = make_batches(FilesSource(paths), examples, unreadable=unreadable)
    pending: tuple[int, np.ndarray, Any] | None = None
    with contextlib.closing(batches):
        for number, batch in enumerate(batches):
            images = put_batch({"image": batch["image"]}, mesh)["image"]
            coming = (number * batch_size, batch["mask"], best(variables, images))
            # One batch late, so that the devices never wait for the host.
            if pending is not None:
                yield from predictions(*pending)
            pending = coming
    if pending is not None:
        yield from predictions(*pending)


def class_name(model: "Model", label: int) -> str:
    """The name of a class, as far as the weights came with any."""
    return f"class {label}" if model.class_names is None else model.class_names[label]


def _load(options: argparse.Namespace) -> tuple["Model", Mapping[str, Any]]:
    from effnetv2_jax.cli.errors import CommandError
    from effnetv2_jax.models.registry import UnknownModelError
    from effnetv2_jax.weights.errors import WeightsError
    from effnetv2_jax.weights.pretrained import load_pretrained

    try:
        given = {"padding": options.padding, "bn_epsilon": options.bn_epsilon}
        stated = {field: value for field, value in given.items() if value is not None}
        model, variables = load_pretrained(
            options.model, options.weights, dtype=options.dtype, **stated
        )
    except UnknownModelError as error:
        raise CommandError(f"--model: {error}") from None
    except TypeError as error:
        if not stated:
            raise
        flags = " and ".join(f"--{field}" for field in stated)
        raise WeightsError(f"leave out {flags}, which the model does not have ({error})") from None
    if not model.num_classes:
        raise WeightsError(f"{options.weights} has no classifier, and so no classes to tell apart")
    return model, variables


def threshold_of(weights: str) -> float | None:
    """The threshold for the weights of a run of several labels, 0.5; None for all others."""
    from effnetv2_jax.outputs.workdir import find_run, read_config

    run = find_run(weights)
    if run is None:
        return None
    metric = read_config(run.workdir).get("evaluation", {}).get("metric", "accuracy")
    return None if metric == "accuracy" else 0.5


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m effnetv2_jax.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="files, URLs, and folders of files"
    )
    parser.add_argument("--weights", required=True, help="where the weights are: see above")
    parser.add_argument("--model", help="such as efficientnetv2-s, or timm's name of it")
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="imported first, since it registers a family of models",
    )
    parser.add_argument("--top", type=_positive, default=5, metavar="N", help="classes to show (5)")
    threshold = "show classes of at least this probability, each by itself (sigmoid)"
    parser.add_argument("--threshold", type=_share, metavar="P", help=threshold)
    parser.add_argument("--format", choices=["table", "json", "csv"], default="table")
    parser.add_argument(
        "--output", metavar="FILE", help="in place of standard output; continued if it exists"
    )
    parser.add_argument("--shard", metavar="I/N", help="a part of the pictures, such as 3/64")
    parser.add_argument(
        "--batch_size", type=_positive, default=32, metavar="N", help="pictures per step (32)"
    )
    parser.add_argument(
        "--padding",
        choices=["same", "symmetric"],
        help="of convolutions, for weights that do not say which they were trained with",
    )
    parser.add_argument("--bn_epsilon", type=float, metavar="X", help="of BatchNorm, likewise")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="that the network computes in (float32)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1]")
    return number


class _Writer:
    """Writes predictions as they come: for people, a JSON object a line, or a CSV row a guess."""

    def __init__(self, kind: str, stream: TextIO, threshold: float | None) -> None:
        self._stream = stream
        self._none = f"no class with a probability of {threshold:g} or more" if threshold else ""
        self._csv = csv.writer(stream, lineterminator="\n")
        writers = {"table": self._table, "json": self._json, "csv": self._csv_rows}
        self._write: Callable[[Prediction], None] = writers[kind]
        if kind == "csv":
            self._csv.writerow(["path", "rank", "label", "name", "probability", "error"])

    def __call__(self, prediction: Prediction) -> None:
        self._write(prediction)

    def close(self) -> None:
        self._stream.flush()

    def _table(self, prediction: Prediction) -> None:
        lines = [f"{guess.probability:8.2%}  {guess.name}" for guess in prediction.guesses]
        if prediction.error:
            lines = [f"   cannot be read: {prediction.error}"]
        elif not lines:
            lines = [f"   {self._none}"]
        self._stream.write("\n".join([prediction.path, *lines, "", ""]))

    def _json(self, prediction: Prediction) -> None:
        line: dict[str, Any] = {
            "path": prediction.path,
            "predictions": [guess._asdict() for guess in prediction.guesses],
        }
        if prediction.error:
            line["error"] = prediction.error
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _csv_rows(self, prediction: Prediction) -> None:
        for rank, guess in enumerate(prediction.guesses, start=1):
            row = [prediction.path, rank, guess.label, guess.name, f"{guess.probability:.6f}", ""]
            self._csv.writerow(row)
        if not prediction.guesses:
            self._csv.writerow([prediction.path, "", "", "", "", prediction.error])


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], Any]]:
    """A bar on a terminal's standard error while results go elsewhere and take a while."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or sys.stdout.isatty()
    with tqdm(total=total, unit="pictures", disable=hidden, delay=1.0) as bar:
        yield bar.update


if __name__ == "__main__":
    sys.exit(main())
