"""Translation of checkpoints."""

import pytest
import timm
import torch
import torchvision
from torch.testing import assert_close

from perception.engine.errors import UserError
from projects.unifygeo.converter import to_authors, to_perception
from projects.unifygeo.network import UnifyGeoNet

from .test_network import SMALL


def state(**settings):
    torch.manual_seed(0)
    network = UnifyGeoNet(**(settings or SMALL))
    return {
        f"network.{key}": torch.randn_like(value, dtype=torch.float32) for key, value in network.state_dict().items()
    }


def test_there_and_back():
    ours = state()
    theirs = to_authors({"state_dict": ours}).checkpoint
    assert len(theirs) == len(ours)
    for key in (
        "grd_encoder.model.stem_0.weight",
        "sat_encoder.model.stages_2.blocks.1.gamma",
        "grd_encoder.model.stages_1.downsample.1.bias",
        "sat_local_feats_decoder.model.conv.mlp.fc1.weight",
        "grd_global_feats_decoder.model.downsample.0.weight",
        "grd_global_feats_decoder.aggregator.block.f.0.weight",
        "sat_global_feats_decoder.aggregator.gem.p",
        "sat_global_feats_decoder.agg_post_norm.bias",
        "pyramid_decoder.grd_feature_to_descriptor4.conv2.weight",
        "pyramid_decoder.deconv1.3.weight",
        "pyramid_decoder.conv1.1.running_var",
        "pyramid_decoder.conv2.0.weight",
        "pyramid_decoder.sat_matching_block_norm1.weight",
        "pyramid_decoder.grd_descriptor_norm3.bias",
        "logit_scale",
        "logit_scale_rerank",
    ):
        assert key in theirs
    assert theirs["sat_encoder.model.stages_2.blocks.1.gamma"].shape == (32,)
    back = to_perception(theirs)
    assert not back.unmatched
    assert back.checkpoint["state_dict"].keys() == ours.keys()
    for key, value in ours.items():
        assert_close(back.checkpoint["state_dict"][key], value, rtol=0, atol=0)


def test_norms_of_the_outputs():
    """Beside timm's model or within it: only the published weights, which have none, are known."""
    ours = state(view={**SMALL["view"], "output_norm": True}, decoder=SMALL["decoder"])
    theirs = to_authors(ours).checkpoint
    assert {"grd_encoder.norm0.weight", "sat_encoder.norm2.bias"} < theirs.keys()
    inside = {key.replace("_encoder.norm", "_encoder.model.norm"): value for key, value in theirs.items()}
    for layout in (theirs, inside):
        back = to_perception(layout)
        assert not back.unmatched
        assert back.checkpoint["state_dict"].keys() == ours.keys()


@pytest.mark.parametrize("norm", ["BN", None])
def test_other_norms(norm):
    """Released options: the decoder without its norms, the attention with batch norm or none."""
    decoder = {**SMALL["decoder"], "batch_norm": False, "match_norm": False}
    ours = state(view={**SMALL["view"], "attention_norm": norm}, decoder=decoder)
    theirs = to_authors(ours).checkpoint
    assert {"pyramid_decoder.conv4.0.bias", "pyramid_decoder.conv1.2.weight", "pyramid_decoder.deconv1.1.weight"} < set(
        theirs
    )
    assert not any("matching_block_norm" in key or "descriptor_norm" in key for key in theirs)
    assert ("sat_global_feats_decoder.aggregator.block.g.1.running_var" in theirs) is (norm == "BN")
    back = to_perception(theirs)
    assert not back.unmatched
    assert back.checkpoint["state_dict"].keys() == ours.keys()


def test_published_keys():
    with torch.device("meta"):
        ours = {f"network.{key}": value for key, value in UnifyGeoNet().state_dict().items()}
    theirs = to_authors(ours).checkpoint
    assert len(theirs) == 457
    assert sum(value.numel() for value in theirs.values()) == 57_700_330


def test_refusals():
    theirs = to_authors({"state_dict": state()}).checkpoint
    theirs.pop("pyramid_decoder.conv3.0.weight")
    with pytest.raises(UserError, match=r"1 weights are missing, such as network\.decoder\.fusions\.1\.0\.weight"):
        to_perception(theirs)
    mixed = to_authors({"state_dict": state()}).checkpoint
    mixed["sat_global_feats_decoder.model.downsample.1.weight"] = torch.zeros(48, 32, 2, 2)
    with pytest.raises(UserError, match="does not hold a UnifyGeo model: the views give maps of"):
        to_perception(mixed)
    with pytest.raises(UserError, match="holds neither a UnifyGeo model"):
        to_perception({"nonsense.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="does not hold a UnifyGeo model"):
        to_authors({"nonsense.weight": torch.zeros(1)})
    extra = {**to_authors({"state_dict": state()}).checkpoint, "orientation_head.weight": torch.zeros(1)}
    assert to_perception(extra).unmatched == ["orientation_head.weight"]
    separate = state(view={**SMALL["view"], "sharing": "none"}, decoder=SMALL["decoder"])
    with pytest.raises(UserError, match=r"no place for \d+ weights of this model"):
        to_authors(separate)


def test_tool(tmp_path, run_tool):
    torch.save(to_authors({"state_dict": state()}).checkpoint, tmp_path / "authors.pth")
    done = run_tool("convert_checkpoint", "unifygeo", tmp_path / "authors.pth", tmp_path / "ours.pth")
    assert done.code == 0, done.err
    done = run_tool("convert_checkpoint", "unifygeo", tmp_path / "ours.pth", tmp_path / "back.pth", "--to", "authors")
    assert done.code == 0, done.err
    before, after = (torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("authors", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("layout", ["timm", "torchvision"])
def test_start_from_imagenet(layout):
    if layout == "timm":
        classifier = timm.create_model("convnext_tiny", pretrained=False)
        block = classifier.stages[3].blocks[0].mlp.fc2.weight
        stem = classifier.stem[0].weight
    else:
        classifier = torchvision.models.convnext_tiny()
        block = classifier.features[7][0].block[5].weight
        stem = classifier.features[0][0].weight
    start = to_perception(classifier.state_dict())
    network = UnifyGeoNet()
    own = {key.removeprefix("network."): value for key, value in start.checkpoint["state_dict"].items()}
    missing, unexpected = network.load_state_dict(own, strict=False)
    assert not unexpected
    assert {key.split(".")[1] for key in missing if key.startswith(("ground", "satellite"))} == {"aggregator"}
    assert_close(network.satellite.local_head.block.block[5].weight, block)
    assert_close(network.ground.encoder.stem[0].weight, stem)
