"""The command `dn2n`: edit a scene by a text, or render it as it is, with a field that was trained on other scenes; and
edit scenes beforehand, to train such a field on."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.engine.errors import UserError, run_cli

EPILOG = """examples:
  dn2n render --load-config outputs/train/dn2n/TIME/config.yml --data SCENE --out renders
  dn2n render --weights ibrnet.pth --data SCENE --camera-path camera_path.json --out frames
  dn2n edit --load-config outputs/train/dn2n/TIME/config.yml --data SCENE --prompt "a scene in snow" --out edits/snow
  dn2n edit-training --data SCENES --prompt "a picture of a scene" --prompt "a scene, photographed" --editor ip2p \\
      --editor-weights WEIGHTS"""

TRAINING = """Edit the training views of a scene, or of each scene in a folder, by every prompt: `ns-train dn2n` then
takes its sources from these edits instead of perturbing images by itself. No trained field is needed.

Written into each scene's folder:
  edits/ID/VIEW.png   an edited view, named as its image; ID is made of the prompt and of all that the edit depends on
  edits/prompts.json  the edits, with their captions, editor, seed and settings; those that are there already stay

Training keeps the photographs as targets: prompts should say the same as the scene's caption, in other words. A prompt
that repaints the scene teaches the field to undo that, which is warned about. The classical editor repaints; what it
does to one view and not to another comes from --jitter.

Views that the filter drops are not written, and training perturbs them as before. A damaged image that the scene's
reader finds stops the command before anything is edited, as it stops training; one that only decoding finds is said,
and its view left out.

Each edited picture is kept in --cache as soon as it is made: a run that was stopped goes on when the same command is
given again, and edits only what is missing, and views whose images have changed. The same command writes the same
pictures: an editor draws by --seed and the number of the view."""


def main() -> None:
    """Entry point of the console script."""
    run_cli(run)


def run(arguments: list[str] | None = None) -> None:
    """Parse and carry out one command."""
    args = parse_args(arguments)
    args.command(args)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of all commands; names must be given in full."""
    parser = argparse.ArgumentParser(
        prog="dn2n", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    render = commands.add_parser("render", allow_abbrev=False, help="render views of a scene from its images")
    _add_common(render)
    render.set_defaults(command=render_command)

    edit = commands.add_parser("edit", allow_abbrev=False, help="edit all images of a scene, filter, and render")
    _add_common(edit)
    edit.add_argument("--prompt", required=True, help="what the scene shall look like")
    _add_editing(edit)
    edit.add_argument(
        "--masks", type=Path, help="folder of masks, named as the images: white is edited, black stays as it is"
    )
    edit.add_argument("--cache", type=Path, help="folder of edited images (default: `cache` in --out)")
    edit.set_defaults(command=edit_command)

    training = commands.add_parser(
        "edit-training",
        allow_abbrev=False,
        help="edit the views of scenes beforehand, to train on",
        description=TRAINING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    training.add_argument("--data", type=Path, required=True, help="folder of a scene, or of several, in known layouts")
    training.add_argument(
        "--prompt", required=True, action="append", help="what edited views shall look like; may be given several times"
    )
    _add_editing(training)
    training.add_argument(
        "--cache", type=Path, help="folder of edited images (default: `edits/cache` in each scene's folder)"
    )
    training.set_defaults(command=edit_training_command)
    return parser.parse_args(arguments)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--load-config", type=Path, help="config.yml of a run of dn2n, dn2n-base, dn2n-clean or dn2n-tiny"
    )
    parser.add_argument("--weights", type=Path, help="IBRNet's weights instead of a run's")
    parser.add_argument("--data", type=Path, required=True, help="folder of the scene, in any known layout")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    views = parser.add_mutually_exclusive_group()
    views.add_argument("--split", choices=("train", "val", "test"), default="test", help="views to render (test)")
    views.add_argument("--camera-path", type=Path, help="JSON that nerfstudio's viewer exports, instead of a split")
    parser.add_argument("--sources", type=int, help="source views of a picture (default: the run's)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")


def _add_editing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source-caption", default="a photo of a scene", help="what it looks like (%(default)s)")
    parser.add_argument(
        "--caption-weights", type=Path, help="local folder of BLIP, which says what it looks like instead"
    )
    parser.add_argument("--editor", default="classical", help="classical, identity, ip2p or null_text (%(default)s)")
    parser.add_argument("--editor-weights", type=Path, help="local folder of diffusers weights, for ip2p and null_text")
    parser.add_argument("--strength", type=float, default=1.0, help="of the classical editor, 0 to 1 (%(default)s)")
    parser.add_argument("--jitter", type=float, default=0.0, help="noise between its views, 0 to 1 (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps of both (%(default)s)")
    parser.add_argument("--guidance-scale", type=float, default=7.5, help="of both, by the text (%(default)s)")
    parser.add_argument("--image-guidance-scale", type=float, default=1.5, help="of ip2p, by the image (%(default)s)")
    parser.add_argument("--inner-steps", type=int, default=10, help="of null_text, for each step (%(default)s)")
    parser.add_argument(
        "--cross-share",
        type=float,
        default=0.8,
        help="of null_text's steps that keep words where they are (%(default)s)",
    )
    parser.add_argument(
        "--self-share", type=float, default=0.4, help="of null_text's steps that keep the layout (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the edits (%(default)s)")
    parser.add_argument("--no-filter", action="store_true", help="keep all edited views")
    parser.add_argument("--drop-top", type=float, default=0.1, help="share dropped as hardly edited (%(default)s)")
    parser.add_argument("--drop-bottom", type=float, default=0.2, help="share dropped as badly edited (%(default)s)")
    parser.add_argument("--min-views", type=int, default=6, help="views that are kept at least (%(default)s)")
    parser.add_argument("--embedding", default="hist", help="of the filter: hist or clip (%(default)s)")
    parser.add_argument("--clip-weights", type=Path, help="local folder of CLIP's weights")


def render_command(args: argparse.Namespace) -> None:
    """`dn2n render`."""
    from projects.dn2n.commands import render_views

    trained = _trained(args)
    for line in render_views(trained, args.out, args.split, args.camera_path):
        print(line)


def edit_command(args: argparse.Namespace) -> None:
    """`dn2n edit`."""
    from projects.dn2n.captions import BlipCaption
    from projects.dn2n.commands import edit_and_render
    from projects.dn2n.editors import make_editor
    from projects.dn2n.embeddings import make_embedding

    request = _request(args, args.prompt, args.masks)
    editor, embedding = make_editor(request.editor), make_embedding(args.embedding, args.clip_weights)
    blip = BlipCaption(args.caption_weights) if args.caption_weights is not None else None
    trained = _trained(args)
    if blip is not None:
        request.source_caption = blip.caption(trained.bank.image(0))
        print(f"BLIP's caption of the first view: {request.source_caption!r}")
    cache = args.cache or args.out / "cache"
    for line in edit_and_render(trained, request, editor, embedding, cache, args.out, args.split, args.camera_path):
        print(line)


def edit_training_command(args: argparse.Namespace) -> None:
    """`dn2n edit-training`."""
    from projects.dn2n.captions import BlipCaption
    from projects.dn2n.editors import make_editor
    from projects.dn2n.embeddings import make_embedding
    from projects.dn2n.training_edits import edit_training_views

    if len(set(args.prompt)) < len(args.prompt):
        raise UserError("--prompt: the same prompt is given twice; other seeds take further calls, with --seed")
    requests = [_request(args, prompt) for prompt in args.prompt]
    editor, embedding = make_editor(requests[0].editor), make_embedding(args.embedding, args.clip_weights)
    blip = BlipCaption(args.caption_weights) if args.caption_weights is not None else None
    for line in edit_training_views(args.data, requests, editor, embedding, args.cache, blip):
        print(line, flush=True)


def _request(args: argparse.Namespace, prompt: str, masks: Path | None = None):
    """What the options of editing ask for; checked."""
    from projects.dn2n.editing import EditRequest
    from projects.dn2n.editors import EditorSettings
    from projects.dn2n.filtering import FilterSettings

    request = EditRequest(
        prompt,
        args.source_caption,
        args.seed,
        use_filter=not args.no_filter,
        masks=masks,
        editor=EditorSettings(
            name=args.editor,
            strength=args.strength,
            jitter=args.jitter,
            weights=args.editor_weights,
            steps=args.steps,
            guidance_scale=args.guidance_scale,
            image_guidance_scale=args.image_guidance_scale,
            inner_steps=args.inner_steps,
            cross_share=args.cross_share,
            self_share=args.self_share,
        ),
        filter=FilterSettings(args.drop_top, args.drop_bottom, args.min_views),
    )
    request.check()
    return request


def _trained(args: argparse.Namespace):
    import torch

    from projects.dn2n.trained import Trained, require_one

    require_one(args.load_config, args.weights)
    if args.sources is not None and args.sources < 2:
        raise UserError(f"--sources must be at least 2, not {args.sources}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no CUDA device here")
    trained = Trained(
        args.load_config, args.weights, args.data, args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    )
    if args.sources is not None:
        trained.model.config.sources.count = args.sources
    return trained


if __name__ == "__main__":
    main()
