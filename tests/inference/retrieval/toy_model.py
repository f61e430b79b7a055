"""A model that retrieves by mean colours, and locates at the brightest of 8 x 8 cells."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from perception.inference.retrieval.model import Fix, QueryFeatures
from tests.inference.toy_work import work


@MODELS.register_module()
class Colours(BaseModel):
    rerank_topk = 2
    descriptor_size = 3

    def __init__(self, seconds=0.0, init_cfg=None):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.seconds = seconds

    def forward(self, *args, **kwargs):
        raise NotImplementedError

    def _describe(self, images):
        work(self.seconds)
        return F.normalize(images.float().mean((1, 2)) * self.scale.detach())

    def encode_tiles(self, images):
        return self._describe(images)

    def encode_queries(self, images):
        return [QueryFeatures(descriptor, None) for descriptor in self._describe(images)]

    def encode_candidate(self, image):
        return image[0].float().mean(-1)

    def compare(self, query, candidate):
        return float(candidate.mean() / 255_000)

    def locate(self, query, candidate):
        heatmap = F.adaptive_avg_pool2d(candidate[None, None], 8)[0, 0].flatten().div(16).softmax(0).view(8, 8)
        row, column = divmod(int(heatmap.argmax()), 8)
        return Fix((row + 0.5) / 8 - 0.5, (column + 0.5) / 8 - 0.5, float(heatmap.max()), heatmap.numpy())
