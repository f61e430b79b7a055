from perception.ops.ms_deform_attn import multi_scale_deformable_attention
from tests.ops.case import Case


def ms_deform_attn_case(sizes, dtype):
    batch, queries, heads, dim = sizes.number(0, 2), sizes.number(0, 15), sizes.number(1, 3), sizes.number(1, 37)
    shapes = [(sizes.number(1, 9), sizes.number(1, 8)), (sizes.number(1, 4), sizes.number(1, 5))]
    points = sizes.number(1, 3)
    length = sum(height * width for height, width in shapes)
    value = sizes.uniform(batch, length, heads, dim, low=-1, dtype=dtype)
    locations = sizes.uniform(batch, queries, heads, 2, points, 2, low=-0.2, high=1.2, dtype=dtype)
    weights = sizes.uniform(batch, queries, heads, 2, points, dtype=dtype)
    return Case(lambda v, p, w: multi_scale_deformable_attention(v, shapes, p, w), (value, locations, weights), 3)


CASES = {"ms_deform_attn": ms_deform_attn_case}
THREADED = True
