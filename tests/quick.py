"""What makes XLA's CPU backend compile in half the time, for programs that run a few times."""

from effnetv2_jax.parallel import compiler


def options() -> compiler.CompilerOptions:
    """Its older emitters of code; none where XLA has its newer ones alone."""
    older: compiler.CompilerOptions = {"xla_cpu_use_fusion_emitters": False}
    return {name: value for name, value in older.items() if compiler.is_known(name, value, "cpu")}


def xla_flags(given: str) -> str:
    """`XLA_FLAGS` of a process, besides those `given`."""
    return " ".join([given, *(f"--{name}={value}" for name, value in options().items())])
