"""What a search maximises: the paper's A * S^w * P^v."""


def reward(
    accuracy: float,
    step_time: float,
    parameters: float,
    *,
    step_time_exponent: float = -0.07,
    parameters_exponent: float = -0.05,
) -> float:
    """The reward of the EfficientNetV2 paper (section 3.1).

    Args:
      accuracy: A, in [0, 1].
      step_time: S, the time of a step of training as a multiple of a reference network's.
      parameters: P, likewise.
      step_time_exponent: w of the paper.
      parameters_exponent: v of the paper.
    """
    return accuracy * step_time**step_time_exponent * parameters**parameters_exponent
