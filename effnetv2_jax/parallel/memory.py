"""What to say when a device has too little memory."""


def out_of_memory(error: BaseException) -> str | None:
    """What can be done about an error of the devices, if it is a lack of memory.

    Returns:
      A message, or None for another error.
    """
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text and "out of memory" not in text.lower():
        return None
    return (
        f"the device has too little memory: {text.splitlines()[0]}\n"
        "  Less of it is needed with a smaller batch, config.gradient_accumulation or "
        "config.model.remat=blocks.\n"
        "  On a GPU, JAX takes three quarters of the memory when it starts, whatever it needs, so "
        "that a second program there,\n"
        "  such as a notebook, finds too little: end the other one, or start both with "
        "XLA_PYTHON_CLIENT_PREALLOCATE=false,\n"
        "  or each with a share of its own, XLA_PYTHON_CLIENT_MEM_FRACTION=0.45"
    )
