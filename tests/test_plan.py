"""The plan shows what stages schedule and what is trained."""

import dataclasses

import pytest
import tiny

from effnetv2_jax.cli.plan import describe
from effnetv2_jax.config import ConfigError


def test_scheduled_stochastic_depth_has_a_column() -> None:
    assert "stochastic depth" not in describe(tiny.experiment())
    first, last = tiny.STAGES
    stages = (dataclasses.replace(first, stochastic_depth_rate=0.05), last)
    lines = describe(tiny.experiment(stages=stages)).splitlines()
    (title,) = (line for line in lines if line.startswith("stage "))
    end = title.index("stochastic depth") + len("stochastic depth")
    rows = lines[lines.index(title) + 1 :][:2]
    # The second takes the model's own.
    assert [row[:end].split()[-1] for row in rows] == ["0.05", "0.2"]


def test_what_is_trained_and_at_which_rates() -> None:
    assert "trains" not in describe(tiny.experiment())
    rates = (("^classifier/", 10.0), ("^head/", 1.0), (".*", 0.0))
    (line,) = (
        line
        for line in describe(tiny.experiment(rates=rates)).splitlines()
        if line.startswith("trains")
    )
    # The classifier takes 128 channels to 6 classes, and the head 16 to these channels.
    assert line == (
        "trains 1,030 parameters; learning rate x 10 for 390 ('^classifier/'), "
        "x 1 for 640 ('^head/'), x 0 for 3,978 ('.*')"
    )
    with pytest.raises(ConfigError, match=r"config.rates\[0\] has 'blokcs'"):
        describe(tiny.experiment(rates=(("blokcs", 2.0),)))
