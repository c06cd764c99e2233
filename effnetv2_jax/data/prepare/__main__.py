"""Runs `effnetv2_jax.data.prepare.command` as `python -m effnetv2_jax.data.prepare`."""

import sys

from effnetv2_jax.data.prepare.command import main

if __name__ == "__main__":
    sys.exit(main())
