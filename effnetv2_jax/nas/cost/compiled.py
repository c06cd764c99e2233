"""S by the traffic of fusions, compiled for a TPU that need not be here.

    cost = Compiled(reference, topology="v5e:2x2", image_size=128, batch_size=128)
    for line in cost.prepare(networks):  # compiles what is missing, for minutes
        print(line)
    cost(network)  # 1.3

A network's traffic is the sum of its blocks', each compiled by itself, and one constant for what
stands around them, found with a few whole networks. It is what the step's fusions read and write at
the compiler's lowest effort: no time, and nothing of how a chip overlaps or places them.
"""

import concurrent.futures
import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from etils import epath

import effnetv2_jax
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import Operator
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.nas.architecture import digest, network_hash
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.cost.kept import Kept
from effnetv2_jax.nas.cost.parts import Part, ends_of, parts_of, table_of
from effnetv2_jax.nas.cost.traffic import Traffic, network_traffic, one_chip, part_traffic
from effnetv2_jax.system.cache import cache_directory
from effnetv2_jax.system.checksums import file_sha256
from effnetv2_jax.system.cores import cores
from effnetv2_jax.system.machine import versions

CLASSES = 1000
"""Where none are stated; they are a small part of the constant."""


@dataclasses.dataclass(frozen=True)
class _Job:
    """Something to compile, and the key that it is kept under."""

    title: str
    key: str
    compile: Callable[[], Traffic]


class Compiled:
    """A `StepTime`: the traffic of a network's fusions as a multiple of the reference's.

    What was compiled is kept on disk, so that an interrupted table goes on, and other studies with
    the same image size and batch share it.
    """

    def __init__(
        self,
        reference: ModelConfig,
        *,
        topology: str = "v5e:2x2",
        image_size: int,
        batch_size: int = 128,
        classes: int = CLASSES,
        dtype: Literal["bfloat16", "float32"] = "bfloat16",
        calibration: Sequence[ModelConfig] = (),
        directory: epath.PathLike | None = None,
        threads: int | None = None,
        compiles: bool = True,
    ) -> None:
        """Compiles nothing yet.

        Args:
          reference: the network whose S is 1, an EfficientNet.
          topology: a slice of v5e, v5p or v6e, of which one chip is compiled for.
          image_size: height and width in training, in pixels.
          batch_size: examples of a step on a chip.
          dtype: that the networks compute in there. What their configs say of that, of BatchNorm
            and of stochastic depth, which they all have there, makes no difference.
          calibration: whole networks, 3 to 8, that the constant is found with; empty for four with
            the reference's channels. Their stem, last block and head are as wide as its own.
          directory: where traffic is kept; None takes the package's cache directory.
          threads: blocks and networks compiled at a time; None takes one for each core.
          compiles: False makes it an error where something is not kept. A process that trains must
            not compile for other devices than its own.

        Raises:
          ConfigError: the reference is no EfficientNet, or a calibrating network has other ends.
        """
        self._dtype: Literal["bfloat16", "float32"] = dtype
        self._size, self._batch = image_size, batch_size
        self._classes, self._topology = classes, topology
        self._reference = self._table(reference)
        self._ends = ends_of(self._reference, image_size)
        given = calibration or calibrating(self._reference)
        self._calibration = [self._table(model) for model in given]
        self._kept = Kept(directory or cache_directory() / "traffic")
        self._threads, self._compiles = threads or cores(), compiles
        self._compiler = {"versions": versions(["jax", "libtpu"]), "code": _code()}
        for model in self._calibration:
            self._check_ends(model)

    @property
    def source(self) -> str:
        """What S is, as trials record it."""
        return (
            f"traffic of fusions, compiled for one chip of {self._topology.partition(':')[0]}: "
            f"{self._batch} images of {self._size} pixels in {self._dtype}"
        )

    def __call__(self, model: ModelConfig) -> float:
        """S of a network; compiles what of it is not kept yet.

        Raises:
          ConfigError: it is no EfficientNet, its ends are not the reference's, or something is not
            kept and `compiles` is False.
          TopologyError: there is no such topology, or its compiler is missing or another.
        """
        return self.bytes(model) / self.bytes(self._reference)

    def bytes(self, model: ModelConfig) -> float:
        """Traffic of a network's step, predicted from its blocks; raises as a call does."""
        whole = self._table(model)
        self._check_ends(whole)
        return self._of_blocks(whole) + self._constant

    def whole(self, model: ModelConfig) -> float:
        """Traffic of a network's step, compiled whole; raises as a call does."""
        return self._traffic(self._network(self._table(model)))

    def prepare(self, models: Iterable[ModelConfig]) -> Iterator[str]:
        """Compiles what these networks need and is not kept yet, and yields a line for each of it.

        Whatever is done is kept when the iteration ends early.

        Raises:
          ConfigError: as a call does; before anything is compiled.
          TopologyError: likewise.
        """
        tables = [self._table(model) for model in models]
        for model in tables:
            self._check_ends(model)
        blocks = {
            part: model
            for model in (*tables, self._reference, *self._calibration)
            for part in parts_of(model, self._size)
        }
        jobs = [self._network(model) for model in self._calibration]
        jobs += [self._block(part, model) for part, model in blocks.items()]
        missing = [job for job in {job.key: job for job in jobs}.values() if not self._known(job)]
        if not missing:
            return
        _ = self._mesh  # A missing compiler is an error of its own.
        with concurrent.futures.ThreadPoolExecutor(self._threads) as executor:
            waiting = {executor.submit(self._compile, job): job for job in missing}
            try:
                for done, future in enumerate(concurrent.futures.as_completed(waiting), start=1):
                    title, traffic = waiting[future].title, future.result()
                    yield (
                        f"{done}/{len(missing)}  {title}: {traffic.bytes / 1e6:,.1f} MB, "
                        f"compiled in {traffic.seconds:.0f} s"
                    )
            finally:
                executor.shutdown(wait=False, cancel_futures=True)

    @functools.cached_property
    def _mesh(self) -> Any:
        return one_chip(self._topology)

    @functools.cached_property
    def _constant(self) -> float:
        """What a whole network moves beside its blocks, on average over those of calibration."""
        return statistics.fmean(
            self._traffic(self._network(model)) - self._of_blocks(model)
            for model in self._calibration
        )

    def _of_blocks(self, model: EfficientNetConfig) -> float:
        parts = parts_of(model, self._size)
        return sum(n * self._traffic(self._block(part, model)) for part, n in parts.items())

    def _table(self, model: ModelConfig) -> EfficientNetConfig:
        whole = table_of(model)
        followed = {name: getattr(whole, name) for name in whole.FOLLOW_NAME}
        return EfficientNetConfig(name=whole.name, dtype=self._dtype, **followed)

    def _check_ends(self, model: EfficientNetConfig) -> None:
        own = ends_of(model, self._size)
        if own != self._ends:
            raise ConfigError(
                f"the stem, the last block and the head of a candidate have {own.stem}, "
                f"{own.outputs} and {own.head} channels, those of the reference {self._ends.stem}, "
                f"{self._ends.outputs} and {self._ends.head}; what they cost is one constant, so "
                "leave their widths out of the search, or measure"
            )

    def _network(self, model: EfficientNetConfig) -> _Job:
        def compile_it() -> Traffic:
            return network_traffic(
                model,
                classes=self._classes,
                image_size=self._size,
                batch=self._batch,
                mesh=self._mesh,
            )

        name = network_hash(model)
        key = self._key({"network": name, "classes": self._classes, "image_size": self._size})
        return _Job(f"network {name}", key, compile_it)

    def _block(self, part: Part, model: EfficientNetConfig) -> _Job:
        def compile_it() -> Traffic:
            return part_traffic(part, model, batch=self._batch, mesh=self._mesh)

        row = part.block
        title = (
            f"{row.operator} {row.kernel}x{row.kernel} stride {row.stride} expand {row.expand} "
            f"{part.inputs}->{row.outputs} at {part.image_size} px"
        )
        return _Job(title, self._key({"part": part, "activation": model.activation}), compile_it)

    def _key(self, what: dict[str, Any]) -> str:
        chip = self._topology.partition(":")[0]
        of_all = {"chip": chip, "batch": self._batch, "dtype": self._dtype}
        return digest({**what, **of_all, **self._compiler})

    def _known(self, job: _Job) -> bool:
        return self._kept.read(job.key) is not None

    def _traffic(self, job: _Job) -> float:
        kept = self._kept.read(job.key)
        if kept is None and not self._compiles:
            raise ConfigError(
                f"the traffic of {job.title} is not kept in {self._kept.directory}; state a "
                "directory that the process which compiles it shares with this one"
            )
        return float(kept["bytes"]) if kept else self._compile(job).bytes

    def _compile(self, job: _Job) -> Traffic:
        traffic = job.compile()
        self._kept.write(job.key, {"what": job.title, **dataclasses.asdict(traffic)})
        return traffic


@functools.cache
def _code() -> str:
    """A checksum of the programs that are compiled: of others nothing may be reused."""
    package = Path(effnetv2_jax.__file__).parent
    folders = (package / name for name in ("ops", "models", "models/efficientnet"))
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    return digest([file_sha256(file) for file in (*files, package / "nas/cost/traffic.py")])


def table_for(search: Search, *, compiles: bool = True) -> Compiled:
    """The table of a search that states `cost=compiled`.

    Raises:
      ConfigError: its reference is no EfficientNet.
    """
    experiment = search.experiment
    return Compiled(
        experiment.model,
        topology=search.cost_topology,
        image_size=search.cost_image_size or experiment.stages[-1].image_size,
        batch_size=search.cost_batch_size,
        classes=experiment.data.num_classes or CLASSES,
        directory=search.cost_path or None,
        compiles=compiles,
    )


def calibrating(reference: EfficientNetConfig) -> list[EfficientNetConfig]:
    """Four networks of the reference's channels and strides, a block in each stage."""
    last = len(reference.stages or ()) - 1

    def with_rows(choose: Callable[[int], tuple[Operator, int, int]]) -> EfficientNetConfig:
        rows = []
        for index, row in enumerate(reference.stages or ()):
            operator, kernel, expand = choose(index)
            ratio = 0.25 if operator == "mbconv" else 0.0
            rows.append(
                dataclasses.replace(
                    row, operator=operator, kernel=kernel, expand=expand, repeats=1, se_ratio=ratio
                )
            )
        return dataclasses.replace(reference, stages=tuple(rows))

    return [
        with_rows(lambda index: ("fused", 3, 4)),
        with_rows(lambda index: ("mbconv", 3, 4)),
        with_rows(lambda index: ("mbconv", 5, 6)),
        with_rows(lambda index: ("fused", 3, 1) if 2 * index < last else ("mbconv", 3, 6)),
    ]
