"""The authors' files: read on a CPU, and never by running what a pickle asks for."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from perception.engine import plain_pickle
from perception.engine.errors import UserError
from projects.vqrf import cli, released
from projects.vqrf.compression import field_of
from projects.vqrf.file_format import container
from projects.vqrf.rendering import load_field
from tests.projects.vqrf.cases import compressed_field, fine_field


def released_kwargs(field) -> dict:
    return {
        "xyz_min": field.xyz_min.numpy(),
        "xyz_max": field.xyz_max.numpy(),
        "num_voxels": field.num_voxels,
        "num_voxels_base": field.num_voxels_base,
        "alpha_init": 1e-2,
        "voxel_size_ratio": torch.tensor(1.0),
        "mask_cache_path": None,
        "fast_color_thres": 1e-4,
        "density_type": "DenseGrid",
        "rgbnet_dim": 12,
        "rgbnet_direct": True,
        "rgbnet_depth": 3,
        "rgbnet_width": 16,
        "viewbase_pe": 4,
        "codebook_size": 16,
    }


def write_released(folder, field, compressed, **extra) -> None:
    """The folder as the released code writes it."""
    folder.mkdir(parents=True)
    bits = 4

    def save(name, array):
        np.savez_compressed(folder / f"{name}.npz", array)

    save("non_prune_density", compressed.density.values.numpy()[:, None])
    save("non_vq_grid", compressed.kept.values.numpy())
    save("non_prune_mask", np.packbits(compressed.non_prune.numpy()))
    save("keep_mask", np.packbits(compressed.keep.numpy()))
    codes = (compressed.codes.numpy()[:, None] >> np.arange(bits)[::-1]) & 1
    save("vq_indexs", np.packbits(codes.astype(bool)))
    save("codebook", compressed.codebook.numpy()[None])
    save("rgbnet", np.array(OrderedDict(compressed.rgbnet), dtype=object))
    state = {
        "act_shift": field.act_shift,
        "viewfreq": field.viewfreq,
        "xyz_min": field.xyz_min,
        "xyz_max": field.xyz_max,
    }
    metadata = {
        "global_step": 9999,
        "world_size": torch.tensor(compressed.world_size),
        "model_kwargs": released_kwargs(field),
        "grid_dequant": {"zero_point": compressed.kept.zero_point, "scale": torch.tensor(compressed.kept.scale)},
        "density_dequant": {"zero_point": compressed.density.zero_point, "scale": compressed.density.scale},
        "model_state_dict": OrderedDict(state),
        **extra,
    }
    np.savez_compressed(folder / "metadata.npz", metadata=np.array(metadata, dtype=object))


def test_folder_gives_the_same_field(tmp_path, capsys):
    field, compressed = compressed_field()
    write_released(tmp_path / "saved", field, compressed)
    imported = released.import_folder(tmp_path / "saved")
    expected, own = field_of(compressed).state_dict(), field_of(imported).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in own.items())
    cli.run(["import", str(tmp_path / "saved"), "--out", str(tmp_path / "field.vqrf"), "--near", "0.5"])
    assert "total" in capsys.readouterr().out
    assert container.read(tmp_path / "field.vqrf").render["near"] == 0.5


def test_tensors_of_a_gpu_arrive_on_the_cpu(tmp_path):
    field, compressed = compressed_field()
    write_released(tmp_path / "saved", field, compressed)
    buffer = io.BytesIO()
    torch.save(torch.arange(3.0).half(), buffer)
    plain = zipfile.ZipFile(io.BytesIO(buffer.getvalue()))
    tagged = io.BytesIO()
    with zipfile.ZipFile(tagged, "w") as archive:
        for name in plain.namelist():
            data = plain.read(name)
            # In a pickle a short string stands behind its length: "cpu" becomes "cuda:0".
            archive.writestr(name, data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(io.BytesIO(tagged.getvalue()), weights_only=True)
    assert torch.equal(plain_pickle._storage_on_cpu(tagged.getvalue()), torch.arange(3.0).half())


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("victim", ["metadata", "rgbnet", "codebook"])
def test_a_pickle_that_would_run_something_is_refused(tmp_path, victim):
    field, compressed = compressed_field()
    write_released(tmp_path / "saved", field, compressed)
    proof = tmp_path / "executed"
    np.savez_compressed(tmp_path / "saved" / f"{victim}.npz", np.array({"x": Attack(proof)}, dtype=object))
    with pytest.raises(UserError, match=f"{victim}.npz"):
        released.import_folder(tmp_path / "saved")
    assert not proof.exists()


def test_a_checkpoint_that_would_run_something_is_refused(tmp_path):
    proof = tmp_path / "executed"
    torch.save({"model_kwargs": Attack(proof), "model_state_dict": {}}, tmp_path / "fine_last.tar")
    with pytest.raises(UserError, match="tensors and arrays alone"):
        released.load_checkpoint(tmp_path / "fine_last.tar")
    (tmp_path / "old.tar").write_bytes(pickle.dumps(Attack(proof)))
    with pytest.raises(UserError, match="not a checkpoint"):
        released.load_checkpoint(tmp_path / "old.tar")
    assert not proof.exists()


@pytest.mark.parametrize("vq", [False, True])
def test_checkpoint_gives_the_same_field(tmp_path, capsys, vq):
    field = fine_field()
    field.mask_cache.mask[:3] = False
    state = dict(field.state_dict())
    if vq:
        state.update({"vq._codebook.embed": torch.zeros(1, 16, 12)})
    torch.save(
        {
            "global_step": 1,
            "model_kwargs": released_kwargs(field),
            "model_state_dict": state,
            "optimizer_state_dict": {},
        },
        tmp_path / "fine_last.tar",
    )
    cli.run(["import", str(tmp_path / "fine_last.tar"), "--out", str(tmp_path / "field.pt")])
    loaded, render = load_field(tmp_path / "field.pt")
    assert render["stepsize"] == 0.5
    assert all(torch.equal(value, field.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("fault", ["missing", "truncated", "text", "mask", "codes"])
def test_broken_folders_are_refused(tmp_path, fault):
    field, compressed = compressed_field()
    folder = tmp_path / "saved"
    write_released(folder, field, compressed)
    if fault == "missing":
        (folder / "codebook.npz").unlink()
    elif fault == "truncated":
        data = (folder / "non_vq_grid.npz").read_bytes()
        (folder / "non_vq_grid.npz").write_bytes(data[: len(data) // 2])
    elif fault == "text":
        (folder / "metadata.npz").write_text("not a zip file")
    elif fault == "mask":
        np.savez_compressed(folder / "keep_mask.npz", np.zeros(3, np.uint8))
    else:
        np.savez_compressed(folder / "vq_indexs.npz", np.zeros(3, np.uint8))
    with pytest.raises(UserError):
        released.import_folder(folder)
