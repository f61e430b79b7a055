"""The command `streamrf`: look into a stream, check it, render it, and exchange it with the released code."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.engine.errors import UserError, run_cli

EPILOG = """examples:
  streamrf info outputs/juggling/streamrf-tiny/TIME/stream
  streamrf verify STREAM
  streamrf render STREAM --camera-path camera_path.json --out video.mp4
  streamrf render STREAM --data data/demo/juggling --out frames
  streamrf decode STREAM --frame 7 --out frame7.npz
  streamrf export STREAM --out released --format npz
  streamrf import ckpt.npz grid_delta_full_z --out STREAM --ndc FX FY WIDTH HEIGHT"""

DENSITY_THRESHOLD = 5.0  # of the released decoder


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
        prog="streamrf", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=function)
        return added

    for name, function, text in (
        ("info", show_info, "show the frames of a stream and their bytes"),
        ("verify", verify, "decode all of a stream and compare its key frames"),
    ):
        command(name, function, text).add_argument("stream", type=Path, help="folder of the stream")

    decode = command("decode", decode_frame, "write the whole field of a frame as a .npz file of the released code")
    decode.add_argument("stream", type=Path, help="folder of the stream")
    decode.add_argument("--frame", type=int, required=True, help="number of the frame; 0 is the base")
    decode.add_argument("--out", type=Path, required=True, help=".npz file to write")

    render = command("render", render_stream, "render a camera path over time, or the test cameras of a video")
    render.add_argument("stream", type=Path, help="folder of the stream")
    views = render.add_mutually_exclusive_group(required=True)
    views.add_argument("--camera-path", type=Path, help="JSON that nerfstudio's viewer exports; the stream plays once")
    views.add_argument("--data", type=Path, help="video whose test cameras are rendered and compared")
    render.add_argument("--test-cameras", nargs="+", default=["cam00"], help="of --data (cam00)")
    render.add_argument("--downscale-factor", type=int, default=1, help="of --data (1)")
    render.add_argument("--out", type=Path, default=Path("renders"), help=".mp4 file, or folder for PNG (renders)")
    render.add_argument("--fps", type=int, default=30, help="pictures a second of an .mp4 file (30)")
    render.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")

    export = command("export", export_stream, "write a stream as files of the released code")
    export.add_argument("stream", type=Path, help="folder of the stream")
    export.add_argument("--out", type=Path, required=True, help="folder to write")
    export.add_argument("--format", choices=("npz", "pth"), default="npz", help="float16 or float32 (npz)")

    imported = command("import", import_released, "make a stream of files of the released code")
    imported.add_argument("base", type=Path, help="ckpt.npz")
    imported.add_argument(
        "--dilate", type=int, help="leave base voxels of density 5 and so many around them, as render_delta.py (2) does"
    )
    imported.add_argument("deltas", type=Path, help="folder of 0001.npz or 0001.pth, ...")
    imported.add_argument("--out", type=Path, required=True, help="folder to write")
    imported.add_argument("--key-every", type=int, default=0, help="frames from one key frame to the next (0: none)")
    imported.add_argument(
        "--ndc",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "WIDTH", "HEIGHT"),
        help="camera of the field's normalised device coordinates, in pixels; by default it is in world coordinates",
    )
    return parser.parse_args(arguments)


def show_info(args: argparse.Namespace) -> None:
    """`streamrf info`."""
    from rich.console import Console
    from rich.table import Table

    from projects.streamrf.container import StreamReader

    reader = StreamReader(args.stream)
    table = Table("frame", "bytes", "voxels", "added", "changed", "parts")
    total = 0
    for frame in range(reader.frames):
        header, parts = reader.parts(frame)
        size = sum(part.bytes for part in parts)
        total += size if frame else 0
        counts = [header.get(name, "") for name in ("n_added", "n_changed")]
        voxels = header["n_next"] if frame else header["n_voxels"]
        listed = ", ".join(f"{part.name} {part.bytes}" for part in parts)
        table.add_row(str(frame), str(size), str(voxels), *map(str, counts), listed)
    Console(width=160).print(table)
    grid = " x ".join(map(str, reader.base.state.size))
    kind = "half precision" if reader.base.half else "single precision"
    print(f"{grid} voxels, {kind}, {reader.frames} frames, key frames: {', '.join(map(str, reader.keys)) or 'none'}")
    if reader.frames > 1:
        print(f"{total / (reader.frames - 1) / 1e6:.3f} MB for each frame after the base")


def verify(args: argparse.Namespace) -> None:
    """`streamrf verify`."""
    import torch

    from projects.streamrf.container import StreamReader

    reader, frame = StreamReader(args.stream), 0
    for frame, state in reader.states():
        if frame in reader.keys:
            key = reader.key(frame)
            if not all(torch.equal(getattr(key, name), getattr(state, name)) for name in ("active", "density", "sh")):
                raise UserError(f"{args.stream}: the key frame {frame} is another field than the frames before it give")
    keys = f" and {len(reader.keys)} key frames" if reader.keys else ""
    print(f"{args.stream}: {reader.frames} frames{keys} are whole; the last one is {reader.digest(frame)[:16]}")


def decode_frame(args: argparse.Namespace) -> None:
    """`streamrf decode`."""
    from projects.streamrf.container import StreamReader
    from projects.streamrf.released import write_base

    state = StreamReader(args.stream).decode(args.frame)
    write_base(args.out, state)
    print(f"{args.out}: frame {args.frame}, {len(state.sh)} voxels")


def render_stream(args: argparse.Namespace) -> None:
    """`streamrf render`."""
    from perception.studio.video_dataparser import MultiviewVideoDataParserConfig
    from projects.streamrf.playback import render_path, render_views

    if args.fps < 1:
        raise UserError(f"--fps must be at least 1, not {args.fps}")
    if args.camera_path is not None:
        count = render_path(args.stream, args.camera_path, args.out, args.device, args.fps)
        print(f"{args.out}: {count} pictures")
        return
    data = MultiviewVideoDataParserConfig(
        data=args.data, test_cameras=tuple(args.test_cameras), downscale_factor=args.downscale_factor
    )
    found = render_views(args.stream, data, args.out, args.device, args.fps)
    for frame, value in enumerate(found):
        print(f"frame {frame}: {value:.2f} dB")
    print(f"{args.out}: mean of frames 1 to {len(found) - 1}: {sum(found[1:]) / max(1, len(found) - 1):.2f} dB")


def export_stream(args: argparse.Namespace) -> None:
    """`streamrf export`."""
    from perception.engine.atomic import output_folder
    from projects.streamrf.container import StreamReader
    from projects.streamrf.released import write_base, write_npz, write_pth

    reader = StreamReader(args.stream)
    folder = output_folder(args.out / ("grid_delta_full_z" if args.format == "npz" else "grid_delta_full"))
    write_base(args.out / "ckpt.npz", reader.base.state)
    total = 0
    for frame in range(1, reader.frames):
        path = folder / f"{frame:04d}.{args.format}"
        (write_npz if args.format == "npz" else write_pth)(path, reader.delta(frame))
        total += path.stat().st_size
    print(f"{args.out}: base and {reader.frames - 1} differences, {total} bytes")


def import_released(args: argparse.Namespace) -> None:
    """`streamrf import`."""
    from dataclasses import replace

    from projects.streamrf import delta as streams
    from projects.streamrf.container import StreamWriter
    from projects.streamrf.field import grid_of, state_of
    from projects.streamrf.released import read_base, read_delta

    files = sorted(path for path in args.deltas.glob("*") if path.suffix in (".npz", ".pth") and path.stem.isdigit())
    files = [path for path in files if int(path.stem)]
    if not files:
        raise UserError(f"no differences found under {args.deltas}: expected 0001.npz or 0001.pth, ...")
    if [int(path.stem) for path in files] != list(range(1, len(files) + 1)):
        raise UserError(f"{args.deltas} must hold one file for each of the frames 1 to {int(files[-1].stem)}")
    state = read_base(args.base)
    if args.dilate is not None:
        grid = grid_of(state)
        grid.sparsify(DENSITY_THRESHOLD, args.dilate)
        state = state_of(grid)
    rendering = streams.Rendering(tuple(args.ndc) if args.ndc else None)
    base = streams.BaseModel(state, False, rendering, notes={"source": "files of the released code"})
    writer = StreamWriter.create(args.out, base, args.key_every)
    for frame, path in enumerate(files, start=1):
        read = read_delta(path, frame, state)
        names = ("added_density", "added_sh", "changed_density", "changed_sh")
        single = replace(read, **{name: getattr(read, name).float() for name in names})
        state = streams.decode_frame(state, single)
        writer.add(single, state)
    print(f"{args.out}: base and {len(files)} differences")


if __name__ == "__main__":
    main()
