"""A search of stub trials with two workers of this machine: python stub_search.py STUDY."""

import contextlib
import sys

import searches
from etils import epath

from effnetv2_jax.nas.executors.local import LocalProcesses
from effnetv2_jax.nas.study import Study, open_study


def main() -> None:
    study = epath.Path(sys.argv[1])
    with contextlib.closing(LocalProcesses(2, command=searches.STUB)) as executor:
        search = open_study(searches.search(trials=12), study, workers=2)
        for _ in Study(search, study, executor, report=print).run():
            pass


if __name__ == "__main__":
    main()
