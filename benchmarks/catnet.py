"""Time and memory of a training step: CAT Mask R-CNN against Mask R-CNN, of equal sizes.

Both detectors, with ResNet-50 and the 15 classes of iSAID, see the same images with the same objects in turn, and with
as many regions. Norms learn in both, without exchange between GPUs. Memory of a step is what autograd keeps for the
backward pass beside weights and inputs. Below, where the difference goes: necks and extractors alone, on the same maps
and regions.

    python benchmarks/catnet.py --size 256 --rounds 3 --threads 2
"""

import argparse
import copy
import resource
import statistics
import time
from collections.abc import Callable

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import InstanceData
from torch import Tensor, nn

from perception.engine.config import load_config
from perception.engine.memory import keep_freed_memory

CONFIGS = {"Mask R-CNN": "catnet/mask_rcnn_r50_3x_isaid_plain", "CAT Mask R-CNN": "catnet"}


def build(name: str) -> nn.Module:
    cfg = load_config(f"configs/{name}.py", {"model.backbone.init_cfg": None})
    return revert_sync_batchnorm(MODELS.build(cfg.model)).train()


def inputs(batch: int, size: int, objects: int) -> tuple[Tensor, list[DetDataSample]]:
    """Noise with rectangular objects of 5 to 35 % of the side."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(batch):
        corner = torch.rand(objects, 2, generator=generator) * size * 0.6
        extent = (0.05 + 0.3 * torch.rand(objects, 2, generator=generator)) * size
        boxes = torch.cat([corner, corner + extent], 1)
        masks = torch.zeros(objects, size, size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        shape = dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo={**shape, "batch_input_shape": (size, size), "pad_shape": (size, size)})
        labels = torch.randint(0, 15, (objects,), generator=generator)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(masks.numpy(), size, size))
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=labels[:0])
        samples.append(sample)
    return torch.randn(batch, 3, size, size, generator=generator), samples


def loss_of(model: nn.Module, images: Tensor, samples: list[DetDataSample]) -> Tensor:
    torch.manual_seed(0)  # the regions that are drawn
    return model.parse_losses(model.loss(images, copy.deepcopy(samples)))[0]


def kept(compute: Callable[[], Tensor], known: list[Tensor]) -> float:
    """MiB that the backward pass needs beside what is known."""
    places = {x.untyped_storage().data_ptr() for x in known}
    held: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in places:
            held[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = compute()
    del loss
    return sum(x.untyped_storage().nbytes() for x in held.values()) / 2**20


def cpu_seconds() -> float:
    """Of all threads of this process: on a busy machine they tell more than the clock."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def compare(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Medians of seconds by the clock and of the processor, of actions that run in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for round_number in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter(), cpu_seconds()
            action()
            taken = time.perf_counter() - start[0], cpu_seconds() - start[1]
            if round_number:  # the first warms up
                times[name].append(taken)
    return {name: tuple(map(statistics.median, zip(*values))) for name, values in times.items()}


def show(title: str, taken: dict[str, tuple[float, float]], memory: dict[str, float] | None = None) -> None:
    first = next(iter(taken.values()))
    print(f"\n{title}")
    for name, (clock, processor) in taken.items():
        text = f"{name:22s} {clock:8.3f} s  {clock / first[0]:5.2f} x   processor {processor:8.3f} s"
        text += f"  {processor / first[1]:5.2f} x"
        print(text + (f"   {memory[name]:7.0f} MiB kept" if memory else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="image side in pixels, a multiple of 64 (default: 256)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=20, help="objects per image (default: 20)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if args.size % 64:
        parser.error(f"--size must be a multiple of 64, not {args.size}")
    register_all_modules()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    models = {name: build(config) for name, config in CONFIGS.items()}
    images, samples = inputs(args.batch, args.size, args.objects)
    print(f"{args.batch} x {args.size} px, {args.threads} threads, medians of {args.rounds} rounds")

    def step(model: nn.Module) -> None:
        loss_of(model, images, samples).backward()
        model.zero_grad(set_to_none=True)

    memory = {
        name: kept(lambda m=model: loss_of(m, images, samples), [*model.parameters(), *model.buffers(), images])
        for name, model in models.items()
    }
    show("a training step", compare({n: lambda m=m: step(m) for n, m in models.items()}, args.rounds), memory)

    with torch.no_grad():
        maps = models["Mask R-CNN"].backbone(images)
        pyramid = models["Mask R-CNN"].neck(maps)
    maps, pyramid = ([x.detach().requires_grad_() for x in level] for level in (maps, pyramid[:4]))
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(256, 2, generator=generator) * args.size * 0.6
    boxes = torch.cat([corners, corners + args.size * (0.05 + 0.3 * torch.rand(256, 2, generator=generator))], 1)
    rois = torch.cat([torch.arange(256)[:, None] % args.batch, boxes], 1)

    def neck(model: nn.Module) -> Tensor:
        return sum(x.square().mean() for x in model.neck(maps))

    def extract(model: nn.Module) -> Tensor:
        return model.roi_head.bbox_roi_extractor(pyramid, rois).square().mean()

    for title, part in (("the neck", neck), ("256 regions, 7 x 7", extract)):
        memory = {
            name: kept(lambda m=model, f=part: f(m), [*model.parameters(), *model.buffers(), *maps, *pyramid])
            for name, model in models.items()
        }
        actions = {name: lambda m=model, f=part: f(m).backward() for name, model in models.items()}
        show(f"{title}, forward and backward", compare(actions, args.rounds), memory)


if __name__ == "__main__":
    main()
