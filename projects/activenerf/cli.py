"""The command `activenerf`: where to photograph next, and maps of the uncertainty."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.engine.errors import UserError, run_cli

EPILOG = """examples:
  activenerf next --load-config outputs/lego/activenerf/2026-01-01_120000/config.yml --candidates cameras.json
  activenerf map --load-config outputs/lego/activenerf/2026-01-01_120000/config.yml --cameras cameras.json --out maps
"""


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
        prog="activenerf", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    following = commands.add_parser("next", help="rank poses without images: JSON, and a picture of the rig")
    following.add_argument("--load-config", type=Path, required=True, help="the run's config.yml")
    following.add_argument(
        "--candidates", type=Path, required=True, help="poses: JSON like transforms.json, or a path of the viewer"
    )
    following.add_argument("--out", type=Path, default=Path("next.json"), help="JSON to write; the picture lies beside")
    following.add_argument("--count", type=int, default=4, help="how many to choose (4)")
    following.add_argument(
        "--stride", type=int, help="every so-manieth row and column is looked at (the run's ds-rate)"
    )
    following.add_argument("--device", help="cuda or cpu (default: cuda where there is one)")
    following.set_defaults(command=next_views)

    maps = commands.add_parser("map", help="render the uncertainty of poses: numbers, and pictures of one fixed scale")
    maps.add_argument("--load-config", type=Path, required=True, help="the run's config.yml")
    maps.add_argument("--cameras", type=Path, required=True, help="poses, as the candidates of `next`")
    maps.add_argument("--out", type=Path, default=Path("maps"), help="folder to write (maps)")
    maps.add_argument("--stride", type=int, default=1, help="every so-manieth row and column is rendered (1)")
    maps.add_argument("--brightest", type=float, default=0.5, help="standard deviation at the end of the scale (0.5)")
    maps.add_argument("--device", help="cuda or cpu (default: cuda where there is one)")
    maps.set_defaults(command=uncertainty_maps)
    return parser.parse_args(arguments)


def next_views(args: argparse.Namespace) -> None:
    """`activenerf next`."""
    from projects.activenerf.advice import advise, draw_advice, write_advice

    for name in ("count", "stride"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    advice = advise(args.load_config, args.candidates, args.count, args.stride, args.device)
    for number, reason in advice.rejected.items():
        print(f"left out: {advice.candidates.names[number]}: {reason}")
    if not advice.chosen:
        raise UserError(f"none of the {len(advice.scores)} candidates would make a useful picture")
    write_advice(advice, args.out)
    draw_advice(advice, args.out.with_suffix(".png"))
    for rank, number in enumerate(advice.chosen):
        print(f"{rank + 1}. {advice.candidates.names[number]}: {advice.scores[number].mean:.4g}")
    print(f"{args.out}, {args.out.with_suffix('.png')}: {len(advice.scores)} candidates")


def uncertainty_maps(args: argparse.Namespace) -> None:
    """`activenerf map`."""
    from projects.activenerf.maps import write_maps

    if args.stride < 1 or not 0 < args.brightest <= 1:
        raise UserError(
            f"--stride must be at least 1 and --brightest in (0, 1], not {args.stride} and {args.brightest}"
        )
    made = write_maps(args.load_config, args.cameras, args.out, args.stride, args.brightest, args.device)
    for file, found in made.items():
        unknown = f"{found.unknown.mean():.0%} seen by fewer than 2 views"
        print(f"{file}: score {found.score.mean:.4g}, mean variance {found.uncert.mean():.4g}, {unknown}")
    print(f"{len(made)} maps in {args.out}")


if __name__ == "__main__":
    main()
