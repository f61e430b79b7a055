"""The command `vqrf`: pack a run into a file, look into a file, render it, import the authors' files."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from perception.engine.errors import UserError, run_cli

EPILOG = """examples:
  vqrf pack outputs/lego/vqrf/2026-01-01_120000
  vqrf info field.vqrf
  vqrf render field.vqrf --data data/nerf_synthetic/lego --out renders
  vqrf render field.vqrf --camera-path camera_path.json --out frames
  vqrf import logs/lego/extreme_saving --out lego.vqrf"""


def main() -> None:
    """Entry point of the console script."""
    run_cli(run)


def run(arguments: list[str] | None = None) -> None:
    """Parse and carry out one command."""
    args = parse_args(arguments)
    args.command(args)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of all commands."""
    parser = argparse.ArgumentParser(
        prog="vqrf", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    pack = commands.add_parser("pack", help="write the file of a nerfstudio run that has reached its last stage")
    pack.add_argument("run", type=Path, help="the run's folder, or its config.yml")
    pack.add_argument("--out", type=Path, help="file to write (default: field.vqrf in the run's folder)")
    pack.set_defaults(command=pack_run)

    info = commands.add_parser("info", help="show the parts of a file and their bytes")
    info.add_argument("file", type=Path)
    info.set_defaults(command=show_info)

    render = commands.add_parser("render", help="render the views of a data set or a camera path, from the file alone")
    render.add_argument("file", type=Path)
    views = render.add_mutually_exclusive_group(required=True)
    views.add_argument("--data", type=Path, help="scene whose views are rendered, read as the run read it")
    views.add_argument("--camera-path", type=Path, help="JSON that nerfstudio's viewer exports")
    render.add_argument("--split", choices=("train", "val", "test"), default="test", help="views of --data (test)")
    render.add_argument("--out", type=Path, default=Path("renders"), help="folder for the images (default: renders)")
    render.add_argument("--device", default=None, help="cuda or cpu (default: cuda where there is one)")
    render.set_defaults(command=render_file)

    imported = commands.add_parser("import", help="convert the authors' extreme_saving folder or checkpoint (.tar)")
    imported.add_argument("source", type=Path, help="folder of .npz files, or fine_last.tar / vq_last.tar")
    imported.add_argument("--out", type=Path, required=True, help=".vqrf file for a folder, .pt for a checkpoint")
    for name, default in (("near", 2.0), ("far", 6.0), ("stepsize", 0.5)):
        imported.add_argument(f"--{name}", type=float, default=default, help=f"of the scene's recipe ({default})")
    imported.add_argument("--background", choices=("white", "black"), default="white", help="of the scene (white)")
    imported.set_defaults(command=import_released)
    return parser.parse_args(arguments)


def pack_run(args: argparse.Namespace) -> None:
    """`vqrf pack`."""
    from projects.vqrf.packing import pack_checkpoint

    config = args.run if args.run.suffix == ".yml" else args.run / "config.yml"
    out = args.out or config.parent / "field.vqrf"
    _print_parts(pack_checkpoint(config, out))


def show_info(args: argparse.Namespace) -> None:
    """`vqrf info`."""
    from projects.vqrf.file_format import container

    compressed = container.read(args.file)
    _print_parts(args.file)
    voxels, remaining = len(compressed.non_prune), int(compressed.non_prune.sum())
    bits = 8 * args.file.stat().st_size
    size = " x ".join(map(str, compressed.world_size))
    kept = int(compressed.keep.sum())
    print(f"{size} voxels, {remaining} remain ({remaining / voxels:.2%}), {kept} of them without a codebook")
    print(f"{len(compressed.codebook)} codewords of {compressed.codebook.shape[1]} numbers")
    print(f"{bits / voxels:.3f} bits per voxel, {bits / max(1, remaining):.2f} per remaining voxel")


def render_file(args: argparse.Namespace) -> None:
    """`vqrf render`."""
    from projects.vqrf.rendering import render_camera_path, render_dataset

    device = _device(args.device)
    if args.camera_path is not None:
        count = render_camera_path(args.file, args.camera_path, args.out, device)
        print(f"{count} frames in {args.out}")
        return
    metrics = render_dataset(args.file, args.data, args.split, args.out, device)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    print(f"{args.split} views in {args.out}: {shown}")


def import_released(args: argparse.Namespace) -> None:
    """`vqrf import`."""
    import torch

    from perception.engine.atomic import replacing
    from projects.vqrf import released
    from projects.vqrf.file_format import container

    shade = 1.0 if args.background == "white" else 0.0
    render = {"near": args.near, "far": args.far, "stepsize": args.stepsize, "background": [shade] * 3}
    if args.source.is_dir():
        container.write(args.out, released.import_folder(args.source, render))
        _print_parts(args.out)
        return
    if not args.source.exists():
        raise UserError(f"there is no {args.source}")
    content = released.load_checkpoint(args.source)
    field = released.checkpoint_field(content)
    written = io.BytesIO()  # torch's writer hides why a file cannot be written
    torch.save({"field": field.settings(), "render": render, "state_dict": field.state_dict()}, written)
    with replacing(args.out) as file:
        file.write(written.getbuffer())
    print(f"{args.out}: {' x '.join(map(str, field.world_size))} voxels, uncompressed")


def _device(name: str | None) -> str:
    """The device of that name, or the fastest there is.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(name)
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        there = "cpu and cuda" if torch.cuda.is_available() else "cpu"
        raise UserError(f"--device {name}: there is no such device here, but {there}") from None
    return name


def _print_parts(path: Path) -> None:
    from rich.console import Console

    from projects.vqrf.report import parts_table

    Console().print(parts_table(path))


if __name__ == "__main__":
    main()
