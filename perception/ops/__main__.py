"""Says which operators have native kernels here, and why: ``python -m perception.ops``."""

from pathlib import Path

from perception.ops import backend

_NO_OPERATORS = ("__init__", "__main__", "build", "mmcv_ext")
# Operators that live in the module of another, or call the kernel of another.
_KERNELS_OF_MODULES = {
    "masked_adam": ("masked_adam_",),
    "masked_rmsprop": ("masked_rmsprop_",),
    "three_nn": ("knn",),
    "total_variation": ("total_variation_add_grad_",),
    "trilinear": ("trilinear_gather", "trilinear_scatter"),
}
_OF_TORCHVISION = ("deform_conv", "modulated_deform_conv", "nms", "roi_align")


def report() -> list[tuple[str, str]]:
    """Every operator module, and what runs it here."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    devices = " and ".join(device.upper() for device in sorted(backend.devices()))
    rows = []
    for name in names:
        if name.startswith("_") or name in _NO_OPERATORS:
            continue
        kernels = [kernel for kernel in _KERNELS_OF_MODULES.get(name, (name,)) if kernel in backend.KERNELS]
        if name in _OF_TORCHVISION:
            rows.append((name, "torchvision's kernels"))
        elif not kernels:
            rows.append((name, "reference: profiles of the recipes do not ask for a kernel"))
        elif devices:
            types = sorted(str(t).removeprefix("torch.") for t in backend.KERNELS[kernels[0]])
            rows.append((name, f"native on {devices} ({', '.join(types)})"))
        else:
            rows.append((name, "reference: the native library is not loaded"))
    return rows


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
