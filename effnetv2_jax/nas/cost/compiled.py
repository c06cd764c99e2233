"""The table of blocks' memory traffic, compiled for a TPU that need not be here.

    compiled = Compiled(reference, topology="v5e:2x2", image_size=128, batch_size=128)
    for line in compiled.prepare(networks):  # compiles what is missing, for minutes
        print(line)
    table = compiled.table(networks)
    table(networks[0])  # 1.3

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
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.models.efficientnet.variants import Operator
from effnetv2_jax.models.protocol import ModelConfig
from effnetv2_jax.nas.architecture import digest, network_hash
from effnetv2_jax.nas.config import Search
from effnetv2_jax.nas.cost.kept import Kept
from effnetv2_jax.nas.cost.parts import Part, ends_of, parts_of, table_of
from effnetv2_jax.nas.cost.parts_table import PartsTable, check_ends, key_of
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
    """Compiles blocks and networks, each once, and makes a `PartsTable` of them.

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

        Raises:
          ConfigError: the reference is no EfficientNet, or a calibrating network has other ends.
        """
        self._dtype: Literal["bfloat16", "float32"] = dtype
        self._size, self._batch = image_size, batch_size
        self._classes, self._topology = classes, topology
        self._reference = self._table(reference)
        self._ends = ends_of(self._reference)
        given = calibration or calibrating(self._reference)
        self._calibration = [self._table(model) for model in given]
        self._kept = Kept(directory or cache_directory() / "traffic")
        self._threads = threads or cores()
        self._compiler = {"versions": versions(["jax", "libtpu"]), "code": _code()}
        for model in self._calibration:
            check_ends(model, self._ends)

    @property
    def source(self) -> str:
        """What S is, as trials record it."""
        return (
            f"traffic of fusions, compiled for one chip of {self._topology.partition(':')[0]}: "
            f"{self._batch} images of {self._size} pixels in {self._dtype}"
        )

    def whole(self, model: ModelConfig) -> float:
        """Traffic of a network's step in bytes, compiled whole unless it is kept.

        Raises:
          ConfigError: it is no EfficientNet.
          TopologyError: there is no such topology, or its compiler is missing or another.
        """
        return self._traffic(self._network(self._table(model)))

    def table(self, models: Iterable[ModelConfig]) -> PartsTable:
        """The traffic of all blocks of these networks; compiles what is not kept yet.

        Raises:
          ConfigError: one is no EfficientNet, or its ends are not the reference's.
          TopologyError: as for `whole`.
        """
        blocks = self._blocks(models)
        table = PartsTable(
            source=self.source,
            image_size=self._size,
            ends=self._ends,
            constant=0.0,
            reference=1.0,
            blocks={key: self._traffic(job) for key, job in blocks.items()},
        )
        constant = statistics.fmean(
            self._traffic(self._network(model)) - table.bytes(model) for model in self._calibration
        )
        table = dataclasses.replace(table, constant=constant)
        return dataclasses.replace(table, reference=table.bytes(self._reference))

    def prepare(self, models: Iterable[ModelConfig]) -> Iterator[str]:
        """Compiles what these networks need and is not kept yet, and yields a line for each of it.

        Whatever is done is kept when the iteration ends early.

        Raises:
          ConfigError, TopologyError: as for `table`; before anything is compiled.
        """
        jobs = [self._network(model) for model in self._calibration]
        jobs += self._blocks(models).values()
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

    def _blocks(self, models: Iterable[ModelConfig]) -> dict[str, _Job]:
        """The blocks of these networks, of the reference and of calibration, by `key_of`."""
        tables = [self._table(model) for model in models]
        for model in tables:
            check_ends(model, self._ends)
        return {
            key_of(part, model.activation): self._block(part, model)
            for model in (*tables, self._reference, *self._calibration)
            for part in parts_of(model, self._size)
        }

    def _table(self, model: ModelConfig) -> EfficientNetConfig:
        whole = table_of(model)
        kept = {name: getattr(whole, name) for name in (*whole.FOLLOW_NAME, "input_channels")}
        return EfficientNetConfig(name=whole.name, dtype=self._dtype, **kept)

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
        images = (self._size, self._size, model.input_channels)
        key = self._key({"network": name, "classes": self._classes, "images": images})
        return _Job(f"network {name}", key, compile_it)

    def _block(self, part: Part, model: EfficientNetConfig) -> _Job:
        def compile_it() -> Traffic:
            return part_traffic(part, model, batch=self._batch, mesh=self._mesh)

        row = part.block
        title = (
            f"{row.operator} {row.kernel}x{row.kernel} stride {row.stride} expand {row.expand} "
            f"{part.inputs}->{row.outputs} at {part.image_size} px"
        )
        return _Job(title, self._key({"block": key_of(part, model.activation)}), compile_it)

    def _key(self, what: dict[str, Any]) -> str:
        chip = self._topology.partition(":")[0]
        of_all = {"chip": chip, "batch": self._batch, "dtype": self._dtype}
        return digest({**what, **of_all, **self._compiler})

    def _known(self, job: _Job) -> bool:
        return self._kept.read(job.key) is not None

    def _traffic(self, job: _Job) -> float:
        kept = self._kept.read(job.key)
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


def compiler_for(search: Search) -> Compiled:
    """What makes the table of a search that states `cost=compiled`.

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
