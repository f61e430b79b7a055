"""The methods in nerfstudio: runs over several scenes, resuming, an unseen scene, edits, commands."""

import json
import shutil
from copy import deepcopy

import pytest
import torch

from perception.datasets.synthetic import scenes
from perception.engine.errors import UserError
from perception.studio.errors import SceneError
from projects.dn2n import cli, trained, training_edits
from projects.dn2n.config import dn2n, dn2n_base, dn2n_clean, dn2n_tiny
from projects.dn2n.editing import load_image, save_image, use_edit
from projects.dn2n.editors import EDITORS, ClassicalEditor, EditorSettings
from projects.dn2n.model import make_renderer
from projects.dn2n.offline import read_offline_edits
from projects.dn2n.scenes_dataparser import ScenesDataParserConfig
from projects.dn2n.trained import Trained
from projects.dn2n.training_views import training_sample

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dn2n")]

STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "scenes"
    scenes.write(out, scenes.Params(num_train=2, num_unseen=2, views=9, size=24))
    return out


def small_config(data, out, steps=STEPS):
    config = deepcopy(dn2n_tiny.config)
    config.data, config.output_dir, config.experiment_name, config.timestamp = data, out, "run", "now"
    config.pipeline.datamanager.data = data
    config.machine.device_type = "cpu"
    config.logging.local_writer.enable = False
    config.steps_per_eval_image = 10**9
    config.pipeline.datamanager.train_num_rays_per_batch = 40
    model = config.pipeline.model
    model.compute_lpips = False
    model.network.features, model.network.widths, model.network.blocks = 4, (8, 8, 8), (1, 1, 1)
    model.network.coarse_samples = model.network.fine_samples = 8
    model.sources.count, model.sources.spread, model.training.iters = 4, 1, STEPS
    config.max_num_iterations = steps
    return config


def train(config):
    torch.manual_seed(config.machine.seed)
    config.get_base_dir().mkdir(parents=True, exist_ok=True)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    config = small_config(data / "train", tmp_path_factory.mktemp("run"))
    return train(config)


@pytest.fixture(scope="module")
def config_file(run):
    return run.base_dir / "config.yml"


def arguments(config_file, data, out, *more):
    return ["--load-config", str(config_file), "--data", str(data), "--out", str(out), *map(str, more)]


def test_a_run_draws_from_all_scenes(run):
    bank = run.pipeline.bank
    assert [(scene.name, scene.end - scene.start) for scene in bank.scenes] == [("shelves_01", 7), ("solids_00", 9)]
    assert (bank.scenes[1].near, bank.scenes[1].far) == (2, 6)
    assert bank.scenes[0].near == pytest.approx(0.9 * 4 / 3, rel=1e-3)  # IBRNet's margin on LLFF's bounds
    drawn = {bank.scene_of(int(run.pipeline.datamanager.next_train(step)[1]["indices"][0, 0])) for step in range(20)}
    assert drawn == {0, 1}
    _, batch = run.pipeline.datamanager.next_train(3)
    assert len(batch["indices"][:, 0].unique()) == 1


def test_a_killed_run_ends_with_the_same_weights(run, data, tmp_path):
    config = small_config(data / "train", tmp_path, steps=3)
    train(config)
    again = small_config(data / "train", tmp_path)
    again.timestamp, again.load_dir = "again", config.get_checkpoint_dir()
    resumed = train(again)
    own = run.pipeline.state_dict()
    for name, value in resumed.pipeline.state_dict().items():
        assert torch.equal(value, own[name]), name


def test_sources_are_taken_from_edits_made_beforehand(run, data, tmp_path):
    folder = shutil.copytree(data / "train", tmp_path / "train")
    bank = run.pipeline.bank
    span = bank.scenes[1]
    files = run.pipeline.datamanager.train_dataset.image_filenames[span.start : span.end]
    size = bank.store.sizes[span.start]
    made = {}
    for number, prompt in enumerate(("a-picture", "an-image", "one-more")):
        for view, path in enumerate(files[1:] if number == 2 else files):  # the last one lacks a view
            image = torch.full((3, *size), 0.2 * number + 0.02 * view)
            made[prompt, path.stem] = image
            target = folder / span.name / "edits" / prompt / f"{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            save_image(target, image)
    listed = folder / span.name / "edits/prompts.json"
    listed.write_text(json.dumps([{"id": prompt} for prompt in ("a-picture", "an-image", "one-more")]))
    trainer = small_config(folder, tmp_path).setup(local_rank=0, world_size=1)
    trainer.setup()
    found = trainer.pipeline.bank
    assert found.offline.keys() == {1}
    assert found.offline[1].count == 3 * len(files) - 1
    model = trainer.pipeline.model.config
    model.training.style_probability = 0.0
    indices = torch.tensor([[span.start + 2, 3, 4], [span.start + 2, 5, 6]])
    pairs = set()
    for seed in range(12):
        sample = training_sample(found, indices, model.sources, model.training, seed=seed)
        plain = training_sample(bank, indices, model.sources, model.training, seed=seed)
        assert torch.equal(sample.colours, found.image(span.start + 2)[:, [3, 5], [4, 6]].T)  # as photographed
        chosen = []
        for images, perturbed, cameras in zip(sample.images, plain.images, sample.cameras):
            views = [int((found.cameras[span.start : span.end] == camera).all(1).nonzero()) for camera in cameras]
            fits = []
            for prompt in ("a-picture", "an-image", "one-more"):
                wanted = [made.get((prompt, files[view].stem), old) for view, old in zip(views, perturbed)]
                fits.append(torch.allclose(images, torch.stack(wanted), atol=1 / 500))
            assert sum(fits) == 1
            chosen.append(fits.index(True))
        pairs.add(tuple(chosen))
    assert len(pairs) > 3
    assert all(first != second for first, second in pairs)
    model.training.style_probability = 1.0  # then the target is edited, too
    both = [training_sample(b, indices, model.sources, model.training, seed=0).images[0] for b in (found, bank)]
    assert torch.equal(*both)

    def refused(sentence, content=None):
        if content is not None:
            listed.write_text(content)
        with pytest.raises(SceneError, match=sentence):
            read_offline_edits(folder / span.name, files, size)

    refused("must be a list of at least one", '[{"id": "../elsewhere"}]')
    refused("is not readable JSON", "[")
    refused("names 'none', but .*none has no", '[{"id": "none"}]')
    save_image(folder / span.name / "edits/an-image" / f"{files[0].stem}.png", torch.zeros(3, 8, 8))
    refused("is 8 x 8 pixels, but its view", '[{"id": "an-image"}]')
    listed.unlink()
    assert read_offline_edits(folder / span.name, files, size) is None


def test_edits_to_train_on_are_made_by_a_command(data, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(data / "train", tmp_path / "train")
    call = ["edit-training", "--data", str(folder), "--prompt", "a picture of a scene", "--prompt", "a night"]
    call += ["--jitter", "0.5", "--strength", "0.5"]
    made = []

    class Counting(ClassicalEditor):
        def edit(self, images, prompt, source_caption, seed, view_ids):
            if len(made) == limit:
                raise KeyboardInterrupt
            made.append((prompt, *view_ids))
            return super().edit(images, prompt, source_caption, seed, view_ids)

    monkeypatch.setitem(EDITORS, "classical", Counting)
    limit = 5
    with pytest.raises(KeyboardInterrupt):
        cli.run(call)
    assert not list(folder.rglob("prompts.json"))
    limit = None
    cli.run(call)
    assert len(made) == 2 * (7 + 9)  # the five of the stopped run are not made again
    assert "night" in capsys.readouterr().out
    pictures = {path: path.read_bytes() for path in folder.rglob("edits/*/*.png")}
    cli.run(call)
    assert len(made) == 2 * (7 + 9)
    assert {path: path.read_bytes() for path in folder.rglob("edits/*/*.png")} == pictures
    assert capsys.readouterr().out.count("warning: the edit repaints the scene") >= 2

    trainer = small_config(folder, tmp_path).setup(local_rank=0, world_size=1)
    trainer.setup()
    bank = trainer.pipeline.bank
    assert bank.offline.keys() == {0, 1}
    for number, span in enumerate(bank.scenes):
        edits = bank.offline[number]
        assert [name.rsplit("-", 1)[0] for name in edits.prompts] == ["a-picture-of-a-scene", "a-night"]
        entries = json.loads((folder / span.name / "edits/prompts.json").read_text())
        assert [entry["target_caption"] for entry in entries] == ["a picture of a scene", "a night"]
        originals = bank.images(list(range(span.start, span.end)))
        views = list(range(len(originals)))
        assert edits.count == 2 * (len(views) - 1)  # the filter drops the last one
        found = edits.put(originals, views, 1)
        wanted = ClassicalEditor(EditorSettings(strength=0.5, jitter=0.5)).edit(originals, "a night", None, 0, views)
        kept = [view for view in views if edits.files[1][view] is not None]
        torch.testing.assert_close(found[kept], wanted[kept], rtol=0, atol=1 / 500)


def test_views_that_cannot_be_read_are_left_out(data):
    readers = ScenesDataParserConfig(data=data / "train").setup().readers
    for name, reader in readers.items():
        outputs = reader.get_dataparser_outputs("train")
        outputs.image_filenames = [*outputs.image_filenames[:2], data / "none.png", *outputs.image_filenames[3:]]
        views = training_edits.read_training_views(name, reader, torch.ones(3))
        count = len(outputs.image_filenames)
        assert views.numbers == [0, 1, *range(3, count)]
        assert views.names == [path.stem for path in outputs.image_filenames if path.stem != "none"]
        assert [str(data / "none.png") in fault for fault in views.faults] == [True]
        assert len(views.bank.images(list(range(count - 1)))) == len(views.bank.cameras) == count - 1
        assert len(outputs.image_filenames) == count


def test_variants_say_what_they_are():
    models = {spec.config.method_name: spec.config.pipeline.model for spec in (dn2n, dn2n_base, dn2n_clean, dn2n_tiny)}
    assert models["dn2n"].training.weight_self == models["dn2n"].training.weight_neighbour == 0.1
    assert models["dn2n-base"].training.weight_self == models["dn2n-base"].training.weight_neighbour == 0
    assert models["dn2n-base"].training.perturbation.probability == 0.7
    assert models["dn2n-clean"].training.perturbation.probability == 0
    assert models["dn2n"].network.coarse_samples == models["dn2n"].network.fine_samples == 64
    assert models["dn2n-tiny"].network.coarse_samples == 16


def test_an_unseen_scene_is_rendered_and_edited(config_file, data, tmp_path, capsys):
    scene = data / "unseen/solids_02"
    cli.run(["render", *arguments(config_file, scene, tmp_path / "plain")])
    plain = capsys.readouterr().out
    assert "psnr of the nearest source view" in plain
    assert len(list(tmp_path.glob("plain/*.png"))) == scenes.TEST_VIEWS
    prompt = ("--prompt", "a scene in snow")
    cli.run(["edit", *arguments(config_file, scene, tmp_path / "edit", *prompt, "--jitter", 0.5)])
    said = capsys.readouterr().out
    assert "8 of 9 views kept" in said
    assert "consistency gain" in said
    manifest = json.loads((tmp_path / "edit/edit.json").read_text())
    assert sum(view["kept"] for view in manifest["views"]) == 8
    assert manifest["request"]["prompt"] == "a scene in snow"
    for made in ("report.jpg", "config.yml", "renders/0003.png"):
        assert (tmp_path / "edit" / made).is_file()
    assert (tmp_path / "edit/renders/0000.png").read_bytes() != (tmp_path / "plain/0000.png").read_bytes()

    # nerfstudio's commands show the same
    from nerfstudio.utils.eval_utils import eval_setup

    _, pipeline, _, _ = eval_setup(tmp_path / "edit/config.yml", test_mode="test")
    camera = pipeline.datamanager.eval_dataset.cameras[0:1]
    shown = pipeline.model.get_outputs_for_camera(camera)["rgb"].movedim(-1, 0)
    torch.testing.assert_close(load_image(tmp_path / "edit/renders/0000.png"), shown, rtol=0, atol=0.51 / 255)


def test_identity_without_filter_is_plain_rendering(config_file, data, tmp_path):
    scene = data / "unseen/solids_02"
    shown = Trained(config_file, None, scene, "cpu")
    cameras, _ = shown.views("test")
    plain = shown.render(cameras, 1)
    cli.run(["edit", *arguments(config_file, scene, tmp_path, "--prompt", "", "--editor", "identity", "--no-filter")])
    use_edit(shown.bank, tmp_path)
    shown.model.attach(shown.bank)
    edited = shown.render(cameras, 1)
    assert all(torch.equal(plain[name], edited[name]) for name in plain)


def test_a_training_view_is_not_its_own_source(config_file, data, tmp_path):
    shown = Trained(config_file, None, data / "unseen/shelves_03", "cpu")
    shown.bank.store.table[shown.bank.store.first[2] : shown.bank.store.first[3]] = torch.tensor(
        [255, 0, 0], dtype=torch.uint8
    )
    cameras, _ = shown.views("train")
    before = shown.render(cameras, 2)["rgb"]
    shown.bank.store.table[shown.bank.store.first[2] : shown.bank.store.first[3]] = 0
    shown.model.attach(shown.bank)
    assert torch.equal(before, shown.render(cameras, 2)["rgb"])


def test_mistakes_are_one_sentence(config_file, data, tmp_path):
    scene = data / "unseen/solids_02"
    with pytest.raises(UserError, match="name a trained run"):
        cli.run(["render", "--data", str(scene), "--out", str(tmp_path)])
    with pytest.raises(UserError, match="several scenes"):
        cli.run(["render", *arguments(config_file, data / "train", tmp_path)])
    with pytest.raises(UserError, match="prompt is empty"):
        cli.run(["edit", *arguments(config_file, scene, tmp_path, "--prompt", " ")])
    with pytest.raises(UserError, match="none: there is no such folder"):
        cli.run(["edit", *arguments(config_file, scene, tmp_path, "--prompt", "snow", "--masks", tmp_path / "none")])
    with pytest.raises(UserError, match=r"captions by BLIP need|a local folder of BLIP"):
        cli.run(["edit", *arguments(config_file, scene, tmp_path, "--prompt", "x", "--caption-weights", tmp_path)])
    with pytest.raises(SystemExit):  # a near-equal name is not taken for another
        cli.run(["edit", *arguments(config_file, scene, tmp_path, "--promp", "snow")])
    with pytest.raises(UserError, match="sources must be at least 2, not 1"):
        cli.run(["render", *arguments(config_file, scene, tmp_path, "--sources", 1)])


def test_published_weights_render_without_a_run(data, tmp_path, capsys, monkeypatch):
    config = small_config(data, tmp_path)
    monkeypatch.setattr(trained, "dn2n", type(dn2n)(config=config, description=""))
    renderer = make_renderer(config.pipeline.model.network)
    names = ("feature_net", "net_coarse", "net_fine")
    torch.save({name: dict(getattr(renderer, name).state_dict()) for name in names}, tmp_path / "ibrnet.pth")
    more = ["--weights", str(tmp_path / "ibrnet.pth"), "--data", str(data / "unseen/solids_02")]
    cli.run(["render", *more, "--out", str(tmp_path / "out")])
    assert "4 test views" in capsys.readouterr().out


def test_demo_scenes_are_made(run_tool, tmp_path):
    small = ("--num-train", 1, "--num-unseen", 1, "--views", 4, "--size", 17)
    done = run_tool("make_demo_data", "scenes", "--out", tmp_path / "scenes", *small)
    assert done.code == 0, done.err
    assert len(list(tmp_path.glob("scenes/train/solids_00/train/*.png"))) == 4
    assert (tmp_path / "scenes/unseen/shelves_01/poses_bounds.npy").is_file()


def test_tool_converts_there_and_back(run_tool, run, tmp_path):
    checkpoint = next(run.checkpoint_dir.glob("*.ckpt"))
    done = run_tool("convert_checkpoint", "dn2n", checkpoint, tmp_path / "authors.pth", "--to", "authors")
    assert done.code == 0, done.err
    done = run_tool("convert_checkpoint", "dn2n", tmp_path / "authors.pth", tmp_path / "ours.pth")
    assert done.code == 0, done.err
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
    own = run.pipeline.state_dict()
    assert ours
    assert all(torch.equal(value, own[f"_model.renderer.{name}"]) for name, value in ours.items())
