"""Which file of an LLFF scene belongs to which row, and images at two resolutions."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance, shelves
from perception.engine.errors import UserError
from perception.studio.camera_paths import read_camera_path, write_camera_path
from perception.studio.check_scene import CheckScene, check
from perception.studio.errors import SceneError
from perception.studio.image_pairs import ImagePairs, area_average
from perception.studio.llff_dataparser import LLFFDataParserConfig
from perception.studio.parsers import read_by
from perception.studio.scene_checks import SceneUse, check_scene
from perception.studio.spiral_path import SpiralPath, make, spiral_cameras
from tests.studio.llff_scenes import LARGE, PARAMS, edit, images, read, resize

pytestmark = pytest.mark.xdist_group("nerfstudio")
WHITE = torch.ones(3)
PAIRED = {"downscale_factor": 4, "sr_scale": 4}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llff") / "scene"
    shelves.write(folder, PARAMS)
    return folder


@pytest.fixture
def copy(scene, tmp_path):
    return shutil.copytree(scene, tmp_path / "scene")


def findings(folder, **options):
    reader = read_by(LLFFDataParserConfig(data=folder, **{**PAIRED, **options})).setup()
    return check_scene(reader, ("train", "val"), SceneUse(), background=WHITE).findings


def refused(folder, match, **options):
    with pytest.raises(SceneError, match=match) as caught:
        read(folder, **{**PAIRED, **options})
    return str(caught.value)


def printed(capsys) -> str:
    """What was said, without blanks and the places in the code that nerfstudio's console adds."""
    return "".join(re.sub(r"\w+\.py:\d+", "", capsys.readouterr().out).split())


# Rows and files


def test_an_image_without_a_row(copy):
    Image.new("RGB", LARGE).save(copy / "images/image_004b.png")
    message = refused(copy, "holds 13 images, but poses_bounds.npy has 12 rows")
    assert message.endswith("image_004b.png are not in images_4; remove them")
    Image.new("RGB", (24, 16)).save(copy / "images_4/image_004b.png")
    message = refused(copy, "holds 13 images, but poses_bounds.npy has 12 rows")
    assert "remove the images without a pose, or name those of all rows in view_imgs.txt" in message


def test_a_row_without_an_image(copy):
    images(copy, "images_4")[3].unlink()
    refused(copy, "images_4 holds 11 images, but poses_bounds.npy has 12 rows")


@pytest.mark.parametrize("kind", ["poses_names.npy", "view_imgs.txt"])
def test_a_list_says_which_images_have_rows(copy, capsys, kind):
    before = read(copy, **PAIRED)
    names = [path.name for path in images(copy)]
    for folder, size in (("images", LARGE), ("images_4", (24, 16))):
        Image.new("RGB", size).save(copy / folder / "image_004b.png")
    if kind.endswith(".npy"):
        np.save(copy / kind, np.array(names))
    else:
        (copy / kind).write_text("\n".join(names) + "\n\n")
    after = read(copy, **PAIRED)
    assert after.image_filenames == before.image_filenames
    assert after.metadata["high_resolution"] == before.metadata["high_resolution"]
    assert "1imageshavenoposeandareleftout:image_004b.png" in printed(capsys)
    (copy / "images/image_006.png").unlink()
    refused(copy, r"images has no image image_006\.png, which is listed for a row")


def test_lists_that_are_wrong(copy):
    (copy / "view_imgs.txt").write_text("image_000.png\n")
    refused(copy, r"view_imgs\.txt names 1 images, but poses_bounds\.npy has 12 rows")
    (copy / "view_imgs.txt").write_text("image_000.png\n" * 12)
    refused(copy, "names an image twice")
    np.save(copy / "poses_names.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(copy, "cannot read .*poses_names")


def test_a_list_in_another_order_reorders_rows(copy):
    """Rows are those of the list, also where the folder of small images was renumbered."""
    before = read(copy, **PAIRED)
    order = [5, 2, 9, 0, 1, 11, 3, 4, 10, 6, 7, 8]
    edit(copy, lambda table: table[order])
    names = [path.name for path in images(copy)]
    (copy / "view_imgs.txt").write_text("\n".join(names[row] for row in order))
    after = read(copy, **PAIRED)
    views, others = before.metadata["llff"], after.metadata["llff"]
    places = [others.names.index(name) for name in views.names]
    torch.testing.assert_close(others.poses[places], views.poses, atol=1e-5, rtol=0)
    for number, path in enumerate(images(copy, "images_4")):
        path.rename(path.with_name(f"small{number:03d}.png"))
    renumbered = read(copy, **PAIRED)
    high = renumbered.metadata["high_resolution"].image_filenames
    assert [path.stem[-3:] for path in renumbered.image_filenames] == [path.stem[-3:] for path in high]
    assert not findings(copy).errors


def test_renumbered_images_are_paired_in_order(copy, capsys):
    for number, path in enumerate(images(copy, "images_4")):
        path.rename(path.with_name(f"image{number:03d}.png"))
    (copy / "images_4/._image003.png").write_bytes(b"\0\5\26\7")
    (copy / "images_4/Thumbs.db").write_bytes(b"x")
    outputs = read(copy, **PAIRED)
    assert "nottakenforimages:._image003.png,Thumbs.db" in printed(capsys)
    assert outputs.image_filenames[0].name == "image001.png"
    assert outputs.metadata["high_resolution"].image_filenames[0].name == "image_001.png"
    assert not findings(copy).errors


def test_an_order_that_is_not_that_of_the_contents(copy):
    """`img_10` sorts before `img_2`: whoever numbered the small images by hand did it otherwise."""
    for number, path in enumerate(images(copy)):
        path.rename(path.with_name(f"img_{number}.png"))
    for number, path in enumerate(images(copy, "images_4")):
        path.rename(path.with_name(f"image{number:03d}.png"))
    (error,) = findings(copy).errors
    assert "img_10.png was paired with image002.png by the order of names, but" in error
    assert "img_2.png shows what that does: give both folders the same names" in error


def test_names_that_differ_in_their_suffix(copy):
    Image.open(images(copy)[3]).convert("RGB").save(copy / "images/image_003.jpg")
    refused(copy, r"several files of one name with different suffixes, as image_003\.jpg and image_003\.png")


# Two resolutions


def test_pairs_of_files(scene):
    outputs = read(scene, **PAIRED)
    pairs = ImagePairs(outputs, 4, WHITE)
    assert len(pairs) == 10
    assert [path.parent.name for path in (pairs.low_filenames[0], pairs.high_filenames[0])] == ["images_4", "images"]
    assert pairs.low_filenames[3].name == pairs.high_filenames[3].name
    high, low = pairs.high_image(3), pairs.low_image(3)
    assert (high.shape, low.shape) == ((64, 96, 3), (16, 24, 3))
    torch.testing.assert_close(area_average(high, 4), low, atol=0.51 / 255, rtol=0)
    np.testing.assert_array_equal(pairs.high_pixels(3), np.asarray(Image.open(pairs.high_filenames[3])))
    full = read(scene, downscale_factor=1).cameras
    for name in ("fx", "fy", "cx", "cy", "width", "height", "camera_to_worlds"):
        torch.testing.assert_close(getattr(pairs.high, name), getattr(full, name))
    with pytest.raises(SceneError, match="makes images 2 times larger, but the scene pairs them at 4"):
        ImagePairs(outputs, 2, WHITE)


def test_pixel_and_its_square_look_the_same_way(scene):
    """The ray of a small pixel goes through the middle of its square of large ones."""
    pairs = ImagePairs(read(scene, **PAIRED), 4, WHITE)
    small = pairs.low.generate_rays(camera_indices=0, keep_shape=True).directions
    large = pairs.high.generate_rays(camera_indices=0, coords=torch.tensor([[4.0 * 5 + 2, 4.0 * 7 + 2]])).directions
    torch.testing.assert_close(small[5, 7], large[0])


def test_pairs_of_averages(tmp_path, capsys):
    """Blender layout has large images only: the small ones are averages, on the background."""
    params = radiance.Params(num_train=2, num_val=1, num_test=1, size=18, num_objects=2)
    radiance.write(tmp_path / "blender", params)
    outputs = read_by(BlenderDataParserConfig(data=tmp_path / "blender")).setup().get_dataparser_outputs("train")
    pairs = ImagePairs(outputs, 2, WHITE)
    assert pairs.low_filenames is None
    pixels = np.asarray(Image.open(outputs.image_filenames[1])).astype(float) / 255
    on_white = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    expected = sum(on_white[row::2, column::2] for row in (0, 1) for column in (0, 1)) / 4
    np.testing.assert_allclose(pairs.low_image(1), expected, atol=1e-6)
    assert pairs.low.fx[0].item() == pytest.approx(params.focal / 2)
    assert pairs.low.width.unique().tolist() == [9]
    assert not printed(capsys)
    odd = ImagePairs(outputs, 4, WHITE)  # 18 is no multiple of 4: the last two rows and columns are left out
    assert "18x18pixels,nomultipleof4:whatremainsatitsrightandlowerendisleftout(and1more)" in printed(capsys)
    assert odd.high_image(0).shape == (16, 16, 3)
    assert odd.low_image(0).shape == (4, 4, 3)
    assert odd.low.cx[0].item() == pytest.approx(9 / 4)
    with pytest.raises(ValueError, match="not multiples of 4"):
        area_average(torch.zeros(18, 16, 3), 4)


def test_large_images_that_are_no_multiple_are_cropped(copy):
    resize(copy, "images", (99, 66))
    edit(copy, lambda table: table.__setitem__((slice(None), [4, 9]), [66, 99]))
    (warning, *_) = [text for text in findings(copy).warnings if "no exact multiple" in text]
    assert "is 99 x 66 pixels, no exact multiple: its top left 96 x 64 are taken" in warning
    assert "shifts by up to 3 pixels (and 9 more of this kind)" in warning
    pairs = ImagePairs(read(copy, **PAIRED), 4, WHITE)
    np.testing.assert_array_equal(pairs.high_pixels(0), np.asarray(Image.open(pairs.high_filenames[0]))[:64, :96])
    resize(copy, "images_4", (25, 17))  # rounded up: there are not enough large pixels
    message = " ".join(findings(copy).errors)
    assert "is 99 x 66 pixels, but 4 times the small image is 100 x 68: make the small images anew" in message


LARGE_FAULTS = {
    "missing": (lambda p: p.unlink(), "images holds 11 images"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-20]), "cannot read"),
    "type": (
        lambda p: Image.fromarray(np.zeros((64, 96), np.uint16)).save(p),
        "type I;16; 8-bit RGB or RGBA is needed",
    ),
    "size": (lambda p: Image.new("RGB", (48, 32)).save(p), "is 48 x 32 pixels, but 4 times the small image is 96 x 64"),
}


@pytest.mark.parametrize("fault", LARGE_FAULTS)
def test_large_images_are_looked_at(copy, fault):
    damage, sentence = LARGE_FAULTS[fault]
    damage(copy / "images/image_003.png")
    assert sentence in " ".join(findings(copy).errors)


def test_a_pair_of_folders_is_found(copy):
    assert read(copy, sr_scale=4).image_filenames[0].parent.name == "images_4"
    refused(copy, "has no images_8, but images, images_4", downscale_factor=8, sr_scale=2)
    (copy / "images").rename(copy / "images_2")
    resize(copy, "images_4", (12, 8))
    (copy / "images_4").rename(copy / "images_8")  # as phones' scenes come: without the full size
    resize(copy, "images_2", (48, 32))
    outputs = read(copy, sr_scale=4)
    assert outputs.image_filenames[0].parent.name == "images_8"
    assert outputs.metadata["high_resolution"].image_filenames[0].parent.name == "images_2"
    assert outputs.cameras.fx[0].item() == pytest.approx(PARAMS.focal / 8)
    assert not findings(copy, downscale_factor=None).errors


# Commands


def test_check_scene_says_what_is_paired(copy, capsys):
    settings = CheckScene(data=copy, out=copy / "scene.png", method="vqrf", dataparser=LLFFDataParserConfig(**PAIRED))
    assert check(settings) == 0
    said = capsys.readouterr().out
    assert "10 train, 1 val, 2 test views" in said
    assert "images of 24 x 16 pixels, focal length 20.4 pixels, paired with ones 4 times larger in images" in said
    assert "near 1.333" in said
    images(copy, "images")[3].write_bytes(b"")
    assert check(settings) == 1
    assert "image_003.png: empty file" in capsys.readouterr().err


def test_the_spiral_is_a_path_that_can_be_rendered(copy, tmp_path, capsys):
    outputs = read(copy, **PAIRED)
    out = tmp_path / "spiral.json"
    assert make(SpiralPath(data=copy, out=out, views=10, enlarge=4, dataparser=LLFFDataParserConfig(**PAIRED))) == 0
    assert "10 cameras of 96 x 64 pixels" in capsys.readouterr().out
    (cameras,) = read_camera_path(out).eyes
    spiral = spiral_cameras(outputs, 10)
    torch.testing.assert_close(cameras.camera_to_worlds, spiral.camera_to_worlds, atol=1e-5, rtol=0)
    assert cameras.fx[0].item() == pytest.approx(PARAMS.focal, rel=1e-5)
    assert (int(cameras.width[0]), int(cameras.height[0])) == LARGE
    assert json.loads(out.read_text())["seconds"] == 4.0
    places = outputs.metadata["llff"].poses[:, :, 3]
    assert bool((spiral.camera_to_worlds[:, :, 3].abs() <= places.abs().amax(0) + 1e-5).all())


def test_a_training_view_on_a_path_is_the_training_view(copy, tmp_path):
    cameras = read(copy, **PAIRED).cameras
    write_camera_path(tmp_path / "path.json", cameras[:3], 1.0)
    (back,) = read_camera_path(tmp_path / "path.json").eyes
    one, two = (part.generate_rays(camera_indices=2, keep_shape=True) for part in (cameras, back))
    torch.testing.assert_close(two.origins, one.origins)
    torch.testing.assert_close(two.directions, one.directions, atol=1e-5, rtol=0)


def test_spirals_that_make_no_sense(tmp_path, copy):
    params = radiance.Params(num_train=8, num_val=1, num_test=1, size=16, num_objects=2, layout="llff")
    radiance.write(tmp_path / "ring", params)
    with pytest.raises(SceneError, match="viewing directions span"):
        make(SpiralPath(data=tmp_path / "ring", out=tmp_path / "a.json"))
    with pytest.raises(UserError, match="--views must be positive, not 0"):
        make(SpiralPath(data=copy, out=tmp_path / "a.json", views=0))
    radiance.write(tmp_path / "blender", radiance.Params(**{**vars(params), "layout": "blender"}))
    with pytest.raises(SceneError, match="a spiral goes by the depth bounds that `llff-data` reads"):
        make(SpiralPath(data=tmp_path / "blender", dataparser=BlenderDataParserConfig(), out=tmp_path / "a.json"))
