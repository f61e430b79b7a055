"""Says which operators have native kernels here, and why: ``python -m perception.ops``."""

from perception.ops import backend, registration


def report() -> list[tuple[str, str]]:
    """Every operator's module, and what runs it here."""
    operators, kernels = registration.operators(), registration.kernels()
    return [(name, _state(name, kernels)) for name in operators]


def _state(operator: str, kernels: dict[str, registration.Kernel]) -> str:
    library = registration.library_of(operator)
    if library is not None:
        return f"{library}'s kernels"
    own = [kernel for kernel in kernels.values() if kernel.operator == operator]
    if not own:
        return "reference: profiles of the recipes do not ask for a kernel"
    if not backend.devices():
        return "reference: the native library is not loaded"
    devices = " and ".join(device.upper() for device in sorted(backend.devices()))
    types = sorted(str(t).removeprefix("torch.") for t in frozenset.intersection(*(kernel.types for kernel in own)))
    return f"native on {devices} ({', '.join(types)})"


def main() -> None:
    """Print the table."""
    rows = report()
    width = max(len(name) for name, _ in rows)
    for name, state in rows:
        print(f"{name:{width}}  {state}")
    native = sum(state.startswith("native") for _, state in rows)
    print(f"\n{native} of {len(rows)} operators run native kernels: {backend.reason()}.")


if __name__ == "__main__":
    main()
