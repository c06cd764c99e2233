"""Makes the family of this package unimportable, as `--import=without_efficientnet`."""

import sys

sys.modules["effnetv2_jax.models.efficientnet"] = None  # type: ignore[assignment]
