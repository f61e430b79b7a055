"""Editors, perturbations, the content filter, the cache of edits, and what is rendered from them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from perception.engine.errors import UserError
from perception.studio.errors import SceneError
from projects.dn2n.bank import SceneSpan, poses_of
from projects.dn2n.captions import FixedCaption, TemplatePrompts
from projects.dn2n.consistency import warped_error
from projects.dn2n.editing import EditRequest, edit_scene, read_masks, save_image, use_edit, write_edit
from projects.dn2n.editors import COLOURS, OPERATIONS, ClassicalEditor, EditorSettings, make_editor, operations_of
from projects.dn2n.embeddings import make_embedding
from projects.dn2n.filtering import FilterSettings, HistogramEmbedding, dropped, image_scores, select
from projects.dn2n.perturbation import PerturbationSettings, perturb, perturb_views
from projects.dn2n.sources import SourceSettings, evaluation_sources, neighbour_of, training_sources
from tests.conftest import REPOSITORY
from tests.projects.dn2n import planes

PROMPTS = {
    "snow": "a scene in winter",
    "night": "rain",
    "autumn": "golden leaves",
    "warm": "a sunset",
    "cold": "a cold day",
    "fog": "Fog!",
    "cartoon": "an oil painting",
}


@pytest.fixture(scope="module")
def views():
    cameras = planes.cameras(20)
    return torch.stack([planes.render(camera)[0] for camera in cameras]), cameras


@pytest.fixture
def bank(views):
    images, cameras = (part.clone() for part in views)
    return SimpleNamespace(
        scenes=[SceneSpan("planes", 0, len(images), planes.NEAR, planes.FAR)],
        poses=poses_of(cameras),
        cameras=cameras,
        all=images,
        edits={},
        image=lambda view: images[view],
        images=lambda chosen: images[chosen],
    )


@pytest.mark.parametrize("group", [*OPERATIONS, *COLOURS, "nothing known"])
def test_every_operation_changes_images_alike(views, group):
    images, prompt = views[0][:4], PROMPTS.get(group, group)
    assert operations_of(prompt) == (() if group == "nothing known" else (group,))
    editor = ClassicalEditor(EditorSettings())
    edited = editor.edit(images, prompt, None, 3, [0, 1, 2, 3])
    assert float((edited - images).abs().mean()) > 0.02
    assert float(edited.min()) >= 0
    assert float(edited.max()) <= 1
    order = [2, 0, 3, 1]
    assert torch.equal(editor.edit(images[order], prompt, None, 3, order), edited[order])


def test_jitter_differs_between_views_and_repeats(views):
    images = views[0][:1].repeat(2, 1, 1, 1)
    editor = ClassicalEditor(EditorSettings(jitter=1.0))
    edited = editor.edit(images, "snow", None, 0, [4, 5])
    assert not torch.equal(edited[0], edited[1])
    assert torch.equal(edited[1:], editor.edit(images[:1], "snow", None, 0, [5]))
    assert not torch.equal(edited, editor.edit(images, "snow", None, 1, [4, 5]))


def test_editors_that_are_missing_are_one_sentence():
    with pytest.raises(UserError, match="no editor 'magic'; there are: classical, identity, ip2p, null_text"):
        make_editor(EditorSettings("magic"))
    with pytest.raises(UserError, match="ip2p needs"):
        make_editor(EditorSettings("ip2p"))
    with pytest.raises(UserError, match="embedding clip needs"):
        make_embedding("clip")
    with pytest.raises(UserError, match="no embedding 'x'"):
        make_embedding("x")
    with pytest.raises(UserError, match=r"strength must be in \[0, 1\], not 2"):
        make_editor(EditorSettings(strength=2.0))


def test_perturbations_belong_to_seed_and_view(views):
    image, settings = views[0][0], PerturbationSettings()
    changed = perturb(image, settings, seed=1, view=2)
    assert torch.equal(changed, perturb(image, settings, seed=1, view=2))
    assert not torch.equal(changed, perturb(image, settings, seed=1, view=3))
    assert torch.equal(image, perturb(image, replace(settings, probability=0.0), seed=1, view=2))
    sizes = [
        float((perturb(image, replace(settings, probability=1.0), seed=s, view=0) - image).abs().mean())
        for s in range(8)
    ]
    assert min(sizes) > 0.02
    assert max(sizes) < 0.4


def test_captions():
    prompts = TemplatePrompts().targets(FixedCaption().caption(torch.zeros(3, 8, 8)), 32)
    assert len(set(prompts)) == 32
    assert {operation for prompt in prompts for operation in operations_of(prompt)} >= set(OPERATIONS)


def test_selection_holds_its_recorded_values():
    recorded = torch.load(REPOSITORY / "tests/data/reference/dn2n/losses_filter.pt", weights_only=True)
    found = select(recorded["inputs"]["scores"])
    torch.testing.assert_close(found.mean_rank, recorded["outputs"]["mean_rank"])
    assert torch.equal(found.order, recorded["outputs"]["order"])
    assert torch.equal(found.keep, recorded["outputs"]["keep"])


def test_ties_and_few_views():
    same = select(torch.zeros(10, 4))
    assert same.order.tolist() == list(range(10))
    assert same.keep.tolist() == list(range(1, 8))
    assert dropped(same) == [0, 8, 9]
    assert select(torch.zeros(7, 4)).keep.tolist() == list(range(6))
    assert select(torch.zeros(5, 4), 0.2, 0.6).keep.tolist() == list(range(5))
    assert select(torch.zeros(10, 4), 0.4, 0.4, min_views=8).keep.tolist() == list(range(2, 10))
    with pytest.raises(ValueError, match="drop_top"):
        select(torch.zeros(10, 4), 1.0)
    with pytest.raises(ValueError, match="not a number"):
        select(torch.full((10, 4), torch.nan))


@pytest.mark.parametrize("fault", ["noise", "another edit"])
def test_bad_edits_are_dropped(views, fault):
    images, cameras = views
    edited = ClassicalEditor(EditorSettings(jitter=0.2)).edit(images, "autumn", None, 0, list(range(20)))
    bad = [3, 9, 14]
    for view in bad:
        if fault == "noise":
            noise = 0.3 * torch.randn(edited[view].shape, generator=torch.Generator().manual_seed(view))
            edited[view] = (edited[view] + noise).clamp(0, 1)
        else:
            edited[view] = ClassicalEditor(EditorSettings()).edit(images[view][None], "night", None, 0, [view])[0]
    scores = image_scores(edited, images, poses_of(cameras)[:, :3, 3], HistogramEmbedding())
    found = select(scores)
    assert len(found.keep) == 14
    assert set(bad) <= set(found.order[-4:].tolist())


def test_cache_knows_what_an_edit_depends_on(bank, tmp_path):
    calls = []

    class Counting(ClassicalEditor):
        def edit(self, images, prompt, source_caption, seed, view_ids):
            calls.append(prompt)
            return super().edit(images, prompt, source_caption, seed, view_ids)

    def edit(prompt="snow", seed=0, strength=1.0):
        settings = EditorSettings(strength=strength)
        request = EditRequest(prompt, seed=seed, editor=settings)
        calls.clear()
        made = edit_scene(bank, 0, request, Counting(settings), HistogramEmbedding(), tmp_path)
        return made, len(calls)

    first, made = edit()
    assert made == 20
    again, made = edit()
    assert made == 0
    assert torch.equal(first.images, again.images)
    for change in (dict(prompt="fog"), dict(seed=1), dict(strength=0.5)):
        assert edit(**change)[1] == 20, change
    bank.all[7] = 0.5
    assert edit()[1] == 1  # the one whose image is another
    with pytest.raises(UserError, match="prompt is empty"):
        edit(prompt=" ")


def test_edit_folder_is_used_or_refused(bank, tmp_path):
    request = EditRequest("snow")
    edit = edit_scene(bank, 0, request, make_editor(request.editor), HistogramEmbedding(), tmp_path / "cache")
    write_edit(edit, [f"{number}.png" for number in range(20)], Path("scene"), tmp_path)
    use_edit(bank, tmp_path)
    assert torch.equal(bank.edits[0].images, edit.images[edit.selection.keep])
    bank.all[4] = 0.1
    with pytest.raises(SceneError, match=r"4\.png has changed since"):
        use_edit(bank, tmp_path)
    with pytest.raises(SceneError, match="holds no edit"):
        use_edit(bank, tmp_path / "cache")


def test_identity_leaves_images_bit_for_bit(bank, tmp_path):
    request = EditRequest("", use_filter=False, editor=EditorSettings("identity"))
    edit = edit_scene(bank, 0, request, make_editor(request.editor), HistogramEmbedding(), tmp_path)
    assert edit.keep_ratio == 1
    assert torch.equal(edit.survivors().images, bank.all)
    assert edit.changed_share == 0


def test_masks_keep_an_edit_where_it_belongs(bank, tmp_path):
    """An editor that tints everything, and masks of the right half."""
    names = [f"view_{number}.jpg" for number in range(20)]
    height, width = bank.all.shape[-2:]
    half = torch.zeros(3, height, width)
    half[:, :, width // 2 :] = 1
    (tmp_path / "masks").mkdir()
    for name in names:
        save_image(tmp_path / "masks" / f"{Path(name).stem}.png", half)
    masks = read_masks(tmp_path / "masks", names, (height, width))
    request = EditRequest("red", masks=tmp_path / "masks")
    editor, embedding = make_editor(request.editor), HistogramEmbedding()
    whole = edit_scene(bank, 0, replace(request, masks=None), editor, embedding, tmp_path / "cache")
    edit = edit_scene(bank, 0, request, editor, embedding, tmp_path / "cache", masks=masks)
    assert torch.equal(edit.images[..., : width // 2], bank.all[..., : width // 2])
    assert torch.equal(edit.images[..., width // 2 :], whole.images[..., width // 2 :])
    assert whole.undone is None
    left = (whole.images - bank.all).abs().amax(1)[..., : width // 2] > 10 / 255
    assert edit.undone == pytest.approx(float(left.sum()) / (whole.changed_share * 20 * height * width), rel=1e-4)
    assert edit.changed_share == pytest.approx(whole.changed_share * (1 - edit.undone), rel=1e-4)
    write_edit(edit, names, Path("scene"), tmp_path)
    use_edit(bank, tmp_path)
    torch.testing.assert_close(bank.edits[0].images, edit.images[edit.selection.keep], rtol=0, atol=0.51 / 255)

    save_image(tmp_path / "masks/view_0.png", torch.ones(3, 10, 20))
    with pytest.raises(UserError, match="20 x 10 pixels, but its image"):
        read_masks(tmp_path / "masks", names, (height, width))
    (tmp_path / "masks/view_3.png").unlink()
    with pytest.raises(UserError, match=r"no mask for view_3\.jpg, and for 1 of 20 images in all"):
        read_masks(tmp_path / "masks", names, (height, width))
    with pytest.raises(UserError, match="there is no such folder"):
        read_masks(tmp_path / "none", names, (height, width))
    save_image(tmp_path / "masks/view_3.png", torch.zeros(3, height, width))
    with pytest.raises(UserError, match="are black"):
        read_masks(tmp_path / "masks", names[3:4], (height, width))


def test_views_are_edited_again_where_too_few_are_left(bank, tmp_path):
    settings = EditorSettings(jitter=1.0)
    request = EditRequest("snow", editor=settings, filter=FilterSettings(drop_bottom=0.5, min_views=12))
    edit = edit_scene(bank, 0, request, make_editor(settings), HistogramEmbedding(), tmp_path)
    assert len(edit.selection.keep) == 12
    assert max(edit.seeds) == 3
    assert min(edit.seeds) < 3


def test_warped_error_tells_edits_that_disagree(views):
    images, cameras = views
    depths = torch.stack([planes.render(camera)[1] for camera in cameras])
    pairs = [(number, number + 1) for number in range(0, 18, 3)]
    before = warped_error(images, depths, cameras, pairs)
    assert before < 1e-3
    tinted = images * torch.rand(20, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    assert warped_error(tinted, depths, cameras, pairs) > 20 * before


def test_sources_of_a_target():
    poses = torch.eye(4).repeat(6, 1, 1)
    poses[:, 0, 3] = torch.arange(6.0)
    assert evaluation_sources(poses[2], poses, 3).tolist() == [1, 3, 0]
    assert evaluation_sources(poses[2], poses, 3, exclude_target=False).tolist() == [2, 1, 3]
    beside = poses[2].clone()
    beside[0, 3] += 0.01
    assert evaluation_sources(beside, poses, 99).tolist() == [2, 3, 1, 4, 0, 5]
    assert evaluation_sources(beside, poses, 99, released_count=True).tolist() == [2, 3, 1, 4, 0]
    assert evaluation_sources(beside, poses, 2, released_count=True).tolist() == [2, 3]


def test_training_draws_sources_by_seed():
    centres = functional.pad(torch.arange(30.0)[:, None], (0, 2))
    settings = SourceSettings(count=4, spread=1, insert_target=0.0)
    drawn = [training_sources(10, centres, settings, seed=seed)[0] for seed in range(60)]
    assert {len(part) for part in drawn} == {3, 4, 5}
    assert not any(10 in part.tolist() for part in drawn)
    assert max(int((part - 10).abs().max()) for part in drawn) <= 6  # twelve nearest at most
    assert torch.equal(drawn[5], training_sources(10, centres, settings, seed=5)[1])
    a, b = training_sources(10, centres, replace(settings, split="disjoint"), seed=3)
    assert not set(a.tolist()) & set(b.tolist())
    assert 10 in training_sources(10, centres, replace(settings, insert_target=1.0), seed=3)[0].tolist()
    assert {neighbour_of(10, centres, settings, seed=seed) for seed in range(60)} == {8, 9, 11, 12}


def test_strength_of_perturbations_mixes(views):
    images, settings = views[0][:2], PerturbationSettings()
    whole = perturb_views(images, settings, seed=0, views=[0, 1])
    half = perturb_views(images, settings, seed=0, views=[0, 1], strength=0.5)
    torch.testing.assert_close(half, (images + whole) / 2)
