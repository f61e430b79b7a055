"""Files of points: every format, what it states and what is wrong with it."""

import io
import struct

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from perception.datasets.clouds.cloud import UnreadableCloudError
from perception.datasets.clouds.reading import read_cloud

RNG = np.random.default_rng(0)
POINTS = np.concatenate([RNG.normal(scale=20, size=(100, 3)), RNG.random((100, 1))], 1).astype(np.float32)


def save(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.tobytes())
    return path


def same(cloud, intensity=True):
    np.testing.assert_array_equal(cloud.xyz, POINTS[:, :3])
    assert set(cloud.columns) == ({"intensity"} if intensity else set())
    if intensity:
        np.testing.assert_array_equal(cloud.columns["intensity"], POINTS[:, 3])
    assert cloud.note == ""


def refused(path, words, **options):
    with pytest.raises(UnreadableCloudError, match=words):
        read_cloud(path, **options)


# ---------------------------------------------------------------------------------------------------------- raw floats


def test_raw_floats(tmp_path):
    same(read_cloud(save(tmp_path / "a.bin", POINTS)))
    five = np.concatenate([POINTS, np.arange(100)[:, None] % 32], 1).astype(np.float32)
    cloud = read_cloud(save(tmp_path / "a.pcd.bin", five))
    assert list(cloud.columns) == ["intensity", "ring"]
    np.testing.assert_array_equal(cloud.columns["ring"], np.arange(100) % 32)
    cloud = read_cloud(save(tmp_path / "b.bin", five), ["x", "y", "z", "reflectance", "time"])
    assert list(cloud.columns) == ["intensity", "time"]
    three = read_cloud(save(tmp_path / "c.bin", POINTS[:, :3].copy()), ["x", "y", "z"])
    same(three, intensity=False)


def test_raw_floats_that_are_something_else(tmp_path):
    refused(save(tmp_path / "a.bin", POINTS.tobytes()[:-4]), "1596 bytes are no multiple of a point's 16")
    refused(save(tmp_path / "b.bin", b""), "it is empty")
    refused(save(tmp_path / "c.bin", b"x y z\n1 2 3\n"), "it is a text")
    refused(save(tmp_path / "d.bin", POINTS[:50].astype(np.float64)), "beyond 10 000 km")
    refused(save(tmp_path / "e.bin", POINTS), "it has no z: its columns are x, y, a, b", columns=["x", "y", "a", "b"])


# ---------------------------------------------------------------------------------------------------------- NumPy


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays(tmp_path, dtype, order):
    """Never as raw floats, which a header of 128 bytes would shift by whole points."""
    np.save(tmp_path / "a.npy", np.asarray(POINTS, dtype, order=order))
    cloud = read_cloud(tmp_path / "a.npy")
    assert cloud.xyz.dtype == dtype
    np.testing.assert_array_equal(cloud.xyz, POINTS[:, :3])
    (tmp_path / "a.npy").rename(tmp_path / "a.bin")  # what it holds counts
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.bin").xyz, cloud.xyz)


def test_structured_and_organised_arrays(tmp_path):
    table = np.zeros(100, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("Reflectivity", "u2"), ("normal", "f4", 3)])
    for number, name in enumerate("xyz"):
        table[name] = POINTS[:, number]
    table["Reflectivity"] = 7
    np.save(tmp_path / "a.npy", table)
    cloud = read_cloud(tmp_path / "a.npy")
    np.testing.assert_array_equal(cloud.xyz, POINTS[:, :3])
    assert list(cloud.columns) == ["intensity"]
    np.save(tmp_path / "b.npy", POINTS.reshape(4, 25, 4))
    np.testing.assert_array_equal(read_cloud(tmp_path / "b.npy").xyz, POINTS[:, :3])


def test_arrays_that_are_no_clouds(tmp_path):
    np.save(tmp_path / "a.npy", np.ascontiguousarray(POINTS.T).repeat(10, 1))
    refused(tmp_path / "a.npy", r"its shape is \(4, 1000\); one point per row")
    np.save(tmp_path / "b.npy", np.array(["a"] * 12).reshape(4, 3))
    refused(tmp_path / "b.npy", "numbers are of type")
    np.save(tmp_path / "c.npy", np.array([{}], object), allow_pickle=True)
    refused(tmp_path / "c.npy", "its array cannot be read")
    np.save(tmp_path / "d.npy", POINTS)
    refused(tmp_path / "d.npy", "it has 4 columns, but 5 names", columns=list("xyzab"))
    save(tmp_path / "e.npy", (tmp_path / "d.npy").read_bytes()[:-100])
    refused(tmp_path / "e.npy", "its array cannot be read")


def test_archives(tmp_path):
    np.savez(tmp_path / "a.npz", points=POINTS, labels=np.zeros(100))
    same(read_cloud(tmp_path / "a.npz"))
    np.savez_compressed(tmp_path / "b.npz", x=POINTS[:, 0], y=POINTS[:, 1], z=POINTS[:, 2], intensity=POINTS[:, 3])
    same(read_cloud(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", first=POINTS, second=POINTS)
    refused(tmp_path / "c.npz", "which of its arrays are the points. They are called first, second")
    save(tmp_path / "d.npz", (tmp_path / "a.npz").read_bytes()[:-200])
    refused(tmp_path / "d.npz", "its arrays cannot be read")


# ---------------------------------------------------------------------------------------------------------- PCD

ROS = [("x", 4, "F", 1), ("y", 4, "F", 1), ("z", 4, "F", 1), ("_", 1, "U", 4), ("intensity", 4, "F", 1),
       ("ring", 2, "U", 1), ("_", 1, "U", 10)]  # fmt: skip


def pcd(form, fields=ROS, count=100, promised=None, extra=b"", packer=None):
    """A file whose intensity is a float and whose ring is an integer, with ROS's padding."""
    dtype = np.dtype([(f"f{n}", f"<{'fu'['FU'.index(t)]}{s}", (c,)) for n, (_, s, t, c) in enumerate(fields)])
    rows = np.zeros(count, dtype)
    for number, (name, *_) in enumerate(fields):
        if name in ("x", "y", "z", "intensity", "reflectivity"):
            rows[f"f{number}"][:, 0] = POINTS[:count, "xyz".index(name) if name in "xyz" else 3]
        elif name == "ring":
            rows[f"f{number}"][:, 0] = np.arange(count) % 32
    promised = count if promised is None else promised
    names, sizes, types, counts = (" ".join(str(field[k]) for field in fields) for k in range(4))
    header = f"# .PCD v0.7\nVERSION 0.7\nFIELDS {names}\nSIZE {sizes}\nTYPE {types}\nCOUNT {counts}\n"
    header += f"WIDTH {promised}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {promised}\nDATA {form}\n"
    if form == "ascii":
        lines = [" ".join(str(value) for name in dtype.names for value in row[name].tolist()) for row in rows]
        body = "\n".join(lines).encode() + b"\n"
    elif form == "binary":
        body = rows.tobytes()
    else:
        plain = b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in dtype.names)
        packed = packer(plain)
        body = struct.pack("<II", len(packed), len(plain)) + packed
    return header.encode() + body + extra


def literal(plain):
    """LZF that copies nothing."""
    pieces = [plain[start : start + 32] for start in range(0, len(plain), 32)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def with_runs(plain):
    """LZF whose runs of zeros are copies of the byte before: short ones, and long ones with a length byte."""
    packed, place = bytearray(), 0
    while place < len(plain):
        run = 0
        while plain[place - 1 : place] == b"\0" and plain[place + run : place + run + 1] == b"\0" and run < 264:
            run += 1
        if run >= 9:
            packed += bytes([7 << 5, run - 9, 0])
            place += run
        elif run >= 3:
            packed += bytes([(run - 2) << 5, 0])
            place += run
        else:
            packed += bytes([0]) + plain[place : place + 1]
            place += 1
    return bytes(packed)


@pytest.mark.parametrize(
    ("form", "packer"),
    [("ascii", None), ("binary", None), ("binary_compressed", literal), ("binary_compressed", with_runs)],
)
def test_pcd_with_padding_of_ros(tmp_path, form, packer):
    cloud = read_cloud(save(tmp_path / "a.pcd", pcd(form, packer=packer)))
    np.testing.assert_array_equal(cloud.xyz, POINTS[:, :3])
    assert list(cloud.columns) == ["intensity", "ring"]
    np.testing.assert_array_equal(cloud.columns["ring"], np.arange(100) % 32)
    np.testing.assert_array_equal(cloud.columns["intensity"], POINTS[:, 3])


def test_compressed_pcd_of_another_library(tmp_path):
    """Open3D writes and compresses by itself."""
    open3d = pytest.importorskip("open3d")
    cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor(POINTS[:, :3]))
    open3d.t.io.write_point_cloud(str(tmp_path / "a.pcd"), cloud, compressed=True)
    assert b"binary_compressed" in (tmp_path / "a.pcd").read_bytes()[:400]
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.pcd").xyz, POINTS[:, :3])


def test_pcd_fields(tmp_path):
    plain = ROS[:3]
    assert not read_cloud(save(tmp_path / "a.pcd", pcd("binary", plain))).columns
    other = [*plain, ("reflectivity", 4, "F", 1)]
    assert list(read_cloud(save(tmp_path / "b.pcd", pcd("binary", other))).columns) == ["intensity"]
    double = [(name, 8, "F", 1) for name in "xyz"]
    cloud = read_cloud(save(tmp_path / "c.pcd", pcd("binary", double)))
    assert cloud.xyz.dtype == np.float64
    np.testing.assert_array_equal(cloud.xyz, POINTS[:, :3])


def test_pcd_headers_that_lie(tmp_path):
    refused(save(tmp_path / "a.pcd", pcd("binary", promised=103)), "promises 103 points, it holds 100")
    refused(save(tmp_path / "b.pcd", pcd("ascii", promised=103)), "promises 103 points, it holds 100")
    surplus = read_cloud(save(tmp_path / "c.pcd", pcd("binary", extra=b"\1" * 77)))
    assert len(surplus) == 100
    zero = pcd("binary").replace(b"WIDTH 100\nHEIGHT 1", b"WIDTH 0\nHEIGHT 0")
    assert len(read_cloud(save(tmp_path / "d.pcd", zero))) == 100
    short = pcd("binary").replace(b"SIZE 4 4 4 1 4 2 1", b"SIZE 4 4 4 1")
    refused(save(tmp_path / "e.pcd", short), "names 7 fields, 4 sizes")
    refused(save(tmp_path / "f.pcd", pcd("binary").replace(b"DATA binary", b"DATA zipped")), "'zipped'")
    refused(save(tmp_path / "g.pcd", b"VERSION 0.7\nFIELDS x y z\n"), "no proper SIZE")
    refused(save(tmp_path / "h.pcd", pcd("ascii").replace(b" 0 0 0 0 0 0 0 0 0 0\n", b" 0\n", 1)), "point 1 has")
    cut = pcd("binary_compressed", packer=literal)[:-9]
    refused(save(tmp_path / "i.pcd", cut), "its header promises 100 points")
    damaged = pcd("binary_compressed", packer=lambda plain: b"\xff" * 40)
    refused(save(tmp_path / "j.pcd", damaged), "compressed data are damaged")


# ---------------------------------------------------------------------------------------------------------- PLY, LAS


@pytest.mark.parametrize(("text", "byte_order"), [(True, "="), (False, "<"), (False, ">")])
def test_ply(tmp_path, text, byte_order):
    rows = np.zeros(100, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("intensity", "f4")])
    for number, name in enumerate(rows.dtype.names):
        rows[name] = POINTS[:, number]
    PlyData([PlyElement.describe(rows, "vertex")], text=text, byte_order=byte_order).write(str(tmp_path / "a.ply"))
    cloud = read_cloud(tmp_path / "a.ply")
    np.testing.assert_allclose(cloud.xyz, POINTS[:, :3], rtol=1e-6)
    np.testing.assert_allclose(cloud.columns["intensity"], POINTS[:, 3], rtol=1e-6)
    assert cloud.xyz.dtype.isnative
    if not text:
        refused(save(tmp_path / "b.ply", (tmp_path / "a.ply").read_bytes()[:-40]), "its PLY cannot be read")


def test_las_is_scaled(tmp_path):
    laspy = pytest.importorskip("laspy")
    las = laspy.create()
    las.header.scales, las.header.offsets = [0.001, 0.001, 0.01], [7e5, 5.6e6, 0]
    las.x, las.y, las.z = (POINTS[:, k].astype(np.float64) + offset for k, offset in enumerate((7e5, 5.6e6, 0)))
    las.intensity = np.arange(100)
    las.write(str(tmp_path / "a.las"))
    cloud = read_cloud(tmp_path / "a.las")
    np.testing.assert_allclose(cloud.xyz - [7e5, 5.6e6, 0], POINTS[:, :3], atol=6e-3)
    np.testing.assert_array_equal(cloud.columns["intensity"], np.arange(100))


def test_las_without_its_library_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "laspy", None)
    refused(save(tmp_path / "a.las", b"LASF" + bytes(300)), "need laspy: pip install")


# ---------------------------------------------------------------------------------------------------------- points


def test_points_that_are_none(tmp_path):
    """Beams that did not return, coordinates and intensities that are no numbers; rows still name those of the file."""
    points = POINTS.copy()
    points[10:60, :3] = 0
    points[60:63, 1] = np.nan
    points[63, 2] = np.inf
    points[70:73, 3] = np.nan
    cloud = read_cloud(save(tmp_path / "a.bin", points))
    assert len(cloud) == 100 - 50 - 4
    np.testing.assert_array_equal(cloud.rows, [*range(10), *range(64, 100)])
    np.testing.assert_array_equal(cloud.xyz, points[cloud.rows, :3])
    assert "4 of 100 points have coordinates that are no numbers" in cloud.note
    assert "50 of 100 points are at the origin" in cloud.note
    assert "intensity of 3 points" in cloud.note
    assert (cloud.columns["intensity"][cloud.rows.tolist().index(70) :][:3] == 0).all()
    refused(save(tmp_path / "b.bin", np.zeros((5, 4), np.float32)), "none of its 5 points is anywhere")


def test_millimetres_as_integers_keep_their_digits(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, (POINTS * 1000).astype(np.int16))
    cloud = read_cloud(save(tmp_path / "a.npy", buffer.getvalue()))
    np.testing.assert_array_equal(cloud.xyz, (POINTS[:, :3] * 1000).astype(np.int16))


def test_millimetres_are_noticed(tmp_path):
    """Coordinates of a map are large too, but near each other."""
    rng = np.random.default_rng(0)
    metres = rng.uniform(-40, 40, (500, 3))
    for name, points, noticed in (("m", metres, False), ("mm", 1000 * metres, True), ("map", metres + 5e6, False)):
        np.save(tmp_path / f"{name}.npy", points)
        assert ("millimetres" in read_cloud(tmp_path / f"{name}.npy").note) == noticed, name
    told = read_cloud(tmp_path / "mm.npy", unit=0.001)
    np.testing.assert_allclose(told.xyz, metres, rtol=1e-12)
    assert "millimetres" not in told.note
