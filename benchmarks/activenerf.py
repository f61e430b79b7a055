"""PSNR against the number of views: ActiveNeRF's choice, random ones, and the farthest cameras, over several seeds.

A run each of `activenerf-tiny` on the built-in scene, measured on its test views before every acquisition and at the
end. The seed of a run is also that of its initial views.

    python benchmarks/activenerf.py --out projects/activenerf/views.png
    python benchmarks/activenerf.py --time                                 # seconds of single steps instead
"""

import argparse
import json
import statistics
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

from perception.datasets.synthetic import radiance
from perception.engine.atomic import replacing
from perception.studio.evaluation import measure_split
from projects.activenerf.acquisition import information_gain
from projects.activenerf.config import activenerf, activenerf_tiny

RAYS = 128  # of the steps that are timed
CHOICES = ("uncertainty", "random", "farthest-point")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("views.png"), help="picture; the numbers lie beside it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--choices", nargs="+", default=CHOICES, choices=CHOICES)
    parser.add_argument(
        "--time", action="store_true", help="time steps and scores of `activenerf-tiny` and `activenerf`"
    )
    args = parser.parse_args()
    if args.time:
        time_parts()
        return
    started, runs = time.monotonic(), []
    with tempfile.TemporaryDirectory() as scratch:
        scene = Path(scratch) / "scene"
        radiance.write(scene, radiance.Params(size=args.size))
        for seed in range(args.seeds):
            for choice in args.choices:
                begun = time.monotonic()
                measured = one_run(scene, Path(scratch) / "runs", choice, seed)
                seconds = time.monotonic() - begun
                runs.append({"choice": choice, "seed": seed, "seconds": seconds, "measured": measured})
                print(f"{choice}, seed {seed}, {seconds:.0f} s: {measured}", flush=True)
    print(f"{time.monotonic() - started:.0f} s in all\n")
    for line in table(runs):
        print(line)
    with replacing(args.out.with_suffix(".json")) as file:
        file.write((json.dumps(runs, indent=2) + "\n").encode())
    draw(runs, args.out)


def time_parts() -> None:
    """Print processor seconds, which a busy machine changes less than the clock."""
    print(f"| method | step on {RAYS} rays, s | scoring as many, s |\n|---|---|---|")
    for method, repeats in ((activenerf_tiny, 5), (activenerf, 1)):
        config = method.config.pipeline
        box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
        model = config.model.setup(scene_box=box, num_train_data=0, metadata={}, device="cpu", grad_scaler=None)
        for network in (model.field_coarse, model.field_fine):
            torch.nn.init.constant_(network.alpha_linear.bias, 0.3)
        adam = torch.optim.Adam(model.get_param_groups()["fields"])
        directions = torch.nn.functional.normalize(torch.randn(RAYS, 3) * 0.1 - torch.tensor([0.0, 0.0, 1.0]), dim=-1)
        bundle = RayBundle(
            origins=torch.tensor([0.0, 0.0, 4.0]).expand(RAYS, 3),
            directions=directions,
            pixel_area=torch.ones(RAYS, 1),
            metadata={"directions_norm": torch.ones(RAYS, 1)},
        )
        random, seconds = torch.Generator().manual_seed(0), []
        for _ in range(repeats):
            begun = time.process_time()
            losses = model.losses(model.render(bundle, random), torch.rand(RAYS, 3))
            adam.zero_grad()
            torch.stack([*losses.values()]).sum().backward()
            adam.step()
            stepped = time.process_time()
            with torch.no_grad():
                fine = model.render(bundle).fine
                information_gain(fine.weights, fine.beta2)
            seconds.append((stepped - begun, time.process_time() - stepped))
        step, score = (statistics.median(part) for part in zip(*seconds))
        print(f"| {method.config.method_name} | {step:.3f} | {score:.3f} |", flush=True)


def one_run(scene: Path, out: Path, choice: str, seed: int) -> list[dict[str, float]]:
    """Metrics of the test views, and the number of `views`, before each acquisition and at the end."""
    config = deepcopy(activenerf_tiny.config)
    config.data = config.pipeline.datamanager.data = scene
    config.output_dir, config.experiment_name, config.timestamp = out, choice, str(seed)
    config.machine.device_type, config.machine.seed = "cpu", seed
    config.steps_per_eval_image = 10**9
    config.logging.local_writer.enable = False
    config.pipeline.datamanager.initial_seed = seed
    config.pipeline.model.acquisition, config.pipeline.model.compute_lpips = choice, False
    torch.manual_seed(seed)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    measured = []

    def measure(step: int) -> None:
        found = measure_split(trainer.pipeline, "test")
        measured.append({"step": step, "views": len(trainer.pipeline.model.pools.active), **found})

    where = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
    # Before the method's own, which acquires.
    trainer.callbacks.insert(0, TrainingCallback(where, measure, iters=config.pipeline.model.active_iters))
    trainer.train()
    measure(trainer.step + 1)
    return measured


def table(runs: list[dict]) -> list[str]:
    """Rows of means over seeds, and standard deviations of PSNR."""
    counts = [entry["views"] for entry in runs[0]["measured"]]
    lines = ["| choice | " + " | ".join(f"{count} views" for count in counts) + " | AUSE | Spearman |"]
    lines.append("|---" * (len(counts) + 3) + "|")
    for choice in dict.fromkeys(run["choice"] for run in runs):
        own = [run["measured"] for run in runs if run["choice"] == choice]
        cells = [spread([measured[place]["psnr"] for measured in own]) for place in range(len(counts))]
        last = [f"{statistics.mean(measured[-1][name] for measured in own):.3f}" for name in ("ause", "spearman")]
        lines.append(f"| {choice} | " + " | ".join([*cells, *last]) + " |")
    return lines


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there are several."""
    shown = f"{statistics.mean(values):.2f}"
    return f"{shown} ± {statistics.stdev(values):.2f}" if len(values) > 1 else shown


def draw(runs: list[dict], out: Path) -> None:
    """Write the plot: lines are means, marks are runs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="training views", ylabel="PSNR of the test views, dB")
    for number, choice in enumerate(dict.fromkeys(run["choice"] for run in runs)):
        own = [run["measured"] for run in runs if run["choice"] == choice]
        counts = [entry["views"] for entry in own[0]]
        means = [statistics.mean(measured[place]["psnr"] for measured in own) for place in range(len(counts))]
        axes.plot(counts, means, color=f"C{number}", label=choice)
        shifted = [count + 0.12 * (number - 1) for count in counts]
        for measured in own:
            axes.plot(shifted, [entry["psnr"] for entry in measured], ".", color=f"C{number}", alpha=0.6)
    axes.set_xticks(counts)
    axes.legend()
    axes.grid(alpha=0.3)
    with replacing(out) as file:
        figure.savefig(file, format="png", dpi=100)


if __name__ == "__main__":
    main()
