"""The command `rise-sdf`: a run under another light, its surface as a mesh, and the light that it learned."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from perception.engine.errors import UserError, run_cli

EPILOG = """examples:
  rise-sdf relight outputs/glossy/rise-sdf/2026-01-01_120000 --light studio.hdr --out relit
  rise-sdf mesh outputs/glossy/rise-sdf/2026-01-01_120000 --out object.glb --resolution 512
  rise-sdf light outputs/glossy/rise-sdf/2026-01-01_120000 --out light.hdr

Lat-long maps: with --up z (Blender) the middle column looks along +x, and columns to the right turn towards -y; with
--up y it looks along -z, and columns to the right turn towards +x."""


def main() -> None:
    """Entry point of the console script."""
    run_cli(run)


def run(arguments: list[str] | None = None) -> None:
    """Parse and carry out one command."""
    args = parse_args(arguments)
    args.command(args)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="rise-sdf", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    relight = commands.add_parser("relight", help="render the views of a run's scene under a lat-long map")
    _add_run(relight)
    relight.add_argument("--light", type=Path, required=True, help="lat-long map, .hdr or .exr, twice as wide as high")
    relight.add_argument("--out", type=Path, default=Path("relit"), help="folder for the pictures (default: relit)")
    relight.add_argument("--split", choices=("train", "val", "test"), default="test", help="views (default: test)")
    relight.add_argument("--up", choices=("z", "y"), default="z", help="axis of the map's upper edge (default: z)")
    relight.add_argument("--rotation", type=float, default=0.0, help="degrees that the map turns right (default: 0)")
    relight.add_argument("--clamp", action="store_true", help="cut radiance at 1, as the published settings do")
    relight.set_defaults(command=relight_run)

    mesh = commands.add_parser("mesh", help="write the surface with materials, in the frame of the scene's files")
    _add_run(mesh)
    mesh.add_argument("--out", type=Path, required=True, help=".glb or .ply file; its frame goes to a .json beside it")
    mesh.add_argument("--resolution", type=int, default=512, help="vertices per side (default: 512)")
    mesh.set_defaults(command=write_mesh_of_run)

    light = commands.add_parser("light", help="write the learned light as a lat-long map")
    _add_run(light)
    light.add_argument("--out", type=Path, required=True, help=".hdr or .exr file; its axes go to a .json beside it")
    light.add_argument("--height", type=int, default=256, help="rows of the map (default: 256)")
    light.add_argument("--up", choices=("z", "y"), default="z", help="axis of the map's upper edge (default: z)")
    light.set_defaults(command=write_light_of_run)
    return parser.parse_args(arguments)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a run of rise-sdf, or its config.yml")


def relight_run(args: argparse.Namespace) -> None:
    """`rise-sdf relight`."""
    import torch
    from PIL import Image

    from perception.datasets.hdr_images import read_latlong
    from perception.engine.atomic import output_folder, replacing
    from perception.studio.progress import progress_bar
    from projects.rise_sdf.model import make_light

    image = torch.from_numpy(read_latlong(args.light))
    pipeline = _load(args.run)
    model = pipeline.model
    model.config.clamp_lights, model.config.lights_up = args.clamp, args.up
    light = make_light(image.to(model.device), model.config, args.rotation)
    print(f"{args.light}: brightest {float(image.max()):.4g}, {'cut at 1' if args.clamp else 'not cut'}")
    views = pipeline.datamanager.split_dataset(args.split)
    output_folder(args.out)
    with progress_bar(f"Relighting the {args.split} views", len(views)) as advance:
        for number in range(len(views)):
            shown = model.relit_view(views.cameras[number : number + 1].to(model.device), light)
            pixels = (shown.clamp(0, 1) * 255).round().byte().cpu().numpy()
            with replacing(args.out / f"{number:04d}.png") as file:
                Image.fromarray(pixels).save(file, format="PNG")
            advance()
    print(f"{len(views)} {args.split} views in {args.out}")


def write_mesh_of_run(args: argparse.Namespace) -> None:
    """`rise-sdf mesh`."""
    from perception.engine.atomic import replacing
    from projects.rise_sdf.mesh import FORMATS, extract_mesh, to_input_frame, write_mesh

    if args.out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {args.out} must end in {' or '.join(FORMATS)}")
    if args.resolution < 8:
        raise UserError(f"--resolution must be at least 8, not {args.resolution}")
    pipeline = _load(args.run)
    mesh = extract_mesh(pipeline.model.field, args.resolution)
    outputs = pipeline.datamanager.train_dataparser_outputs
    moved = to_input_frame(mesh, outputs.dataparser_transform, float(outputs.dataparser_scale))
    write_mesh(mesh, args.out)
    frame = {"frame": "that of the scene's files", "from_the_field's_frame": moved.tolist()}
    with replacing(args.out.with_suffix(".json")) as file:
        file.write((json.dumps(frame, indent=2) + "\n").encode())
    size = " x ".join(f"{side:.4g}" for side in mesh.bounds[1] - mesh.bounds[0])
    print(f"{args.out}: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces, {size} in the scene's units")


def write_light_of_run(args: argparse.Namespace) -> None:
    """`rise-sdf light`."""
    from perception.datasets.hdr_images import SUFFIXES, write_hdr
    from perception.engine.atomic import replacing
    from perception.radiance.cubemap import cube_to_latlong

    if args.out.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out {args.out} must end in {' or '.join(SUFFIXES)}")
    if args.height < 4:
        raise UserError(f"--height must be at least 4, not {args.height}")
    base = _load(args.run).model.field.light.base.detach()
    negative = int((base < 0).sum())
    image = cube_to_latlong(base.clamp(min=0), args.height, 2 * args.height, up=args.up)
    write_hdr(args.out, image.cpu().numpy())
    axes = {
        "up": f"+{args.up}",
        "middle_column": "+x" if args.up == "z" else "-z",
        "quarter_to_the_right": "-y" if args.up == "z" else "+x",
        "radiance": "linear",
    }
    with replacing(args.out.with_suffix(".json")) as file:
        file.write((json.dumps(axes, indent=2) + "\n").encode())
    print(f"{args.out}: {2 * args.height} x {args.height} pixels, brightest {float(image.max()):.4g}")
    if negative:
        print(f"{negative} of {base.numel()} values of the learned light were negative and are 0 in the file")


def _load(run: Path):
    """The pipeline of a trained run.

    Raises:
        UserError: there is none, or of another method.
    """
    import torch
    from nerfstudio.utils.eval_utils import eval_setup

    from projects.rise_sdf.model import RiseSdfModel

    config = run if run.suffix == ".yml" else run / "config.yml"
    if not config.is_file():
        raise UserError(f"{run} is not the folder of a run: it has no config.yml")
    with torch.no_grad():
        _, pipeline, _, _ = eval_setup(config, test_mode="test")
    model = pipeline.model
    if not isinstance(model, RiseSdfModel):
        raise UserError(f"{run} is a run of another method than rise-sdf")
    pipeline.eval()
    model.field.surface.set_step(model.schedule.total_steps)
    return pipeline


if __name__ == "__main__":
    main()
