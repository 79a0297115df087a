"""Archives of arrays: what they claim is checked before it is unpacked."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from emofuse_jax.utils.safe_npz import MAX_ERROR_CHARS, MAX_HEADER_BYTES, MAX_ROWS, read_npz
from tests.robustness.fuzz.bombs import make_archive, make_array_header, make_bombs

SHAPES = {"mean": (3,), "std": (3,)}


def save_archive(save=np.savez, **arrays) -> io.BytesIO:
    file = io.BytesIO()
    save(file, **arrays)
    return file


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote_is_read(save, tmp_path):
    arrays = {"mean": np.arange(3.0), "std": np.float16([1, 2, 3]), "more": np.zeros((5, 5))}
    (tmp_path / "a.npz").write_bytes(save_archive(save, **arrays).getvalue())
    for source in (save_archive(save, **arrays), str(tmp_path / "a.npz")):
        loaded = read_npz(source, SHAPES)
        assert sorted(loaded) == ["mean", "std"]
        for name in loaded:
            np.testing.assert_array_equal(loaded[name], arrays[name])
            assert loaded[name].dtype == arrays[name].dtype


def test_rows():
    loaded = read_npz(
        save_archive(a=np.ones((MAX_ROWS, 2)), b=np.ones((1, 3), bool)), {"a": (2,), "b": (3,)}, has_rows=True
    )
    assert (loaded["a"].shape, loaded["b"].shape) == ((MAX_ROWS, 2), (1, 3))
    for wrong_array in (
        np.ones((MAX_ROWS + 1, 2)),
        np.ones((0, 2)),
        np.ones(2),
        np.ones((1, 1, 2)),
        np.float32(1),
    ):
        with pytest.raises(
            ValueError,
            match=rf"\Athe .npz file's array a has shape \[.*\], expected \[1 to {MAX_ROWS}, 2\]\Z",
        ):
            read_npz(save_archive(a=wrong_array), {"a": (2,)}, has_rows=True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.zeros(3)}, "There is no item named 'std.npy'"),
        ({"mean": np.zeros(3), "std": np.zeros(4)}, r"std has shape \[4\], expected \[3\]"),
        ({"mean": np.zeros(3), "std": np.zeros((3, 1))}, r"std has shape \[3, 1\], expected \[3\]"),
        ({"mean": np.array([{}] * 3), "std": np.zeros(3)}, "mean has dtype object, expected numbers"),
        ({"mean": np.array(["a"] * 3), "std": np.zeros(3)}, "mean has dtype str32, expected numbers"),
        ({"mean": np.zeros(3, [("a", "f4")]), "std": np.zeros(3)}, "mean has dtype void32, expected numbers"),
    ],
)
def test_other_arrays(arrays, message):
    with pytest.raises(ValueError, match=message):
        read_npz(save_archive(**arrays), SHAPES)


@pytest.mark.parametrize("name", [f"claims_{1 << n}" for n in (27, 34, 60)] + ["unpacks", "long_header"])
def test_nothing_is_unpacked_that_is_larger_than_expected(name):
    data = io.BytesIO(make_bombs(["mean", "std"], block_count=4)[name])
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match=r"\Athe .npz file's array mean has (shape \[\d+\]|\d+ bytes unpacked), expected"
        ):
            read_npz(data, SHAPES)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_size_that_the_archive_understates():
    """No more is unpacked than the archive's own list says."""
    data = make_archive(["mean", "std"], make_array_header((3,)), 1)
    with zipfile.ZipFile(io.BytesIO(data)) as npz_file:
        size = npz_file.getinfo("mean.npy").file_size
    understated = data.replace(size.to_bytes(4, "little"), (200).to_bytes(4, "little"))
    assert understated != data
    with pytest.raises(ValueError, match=r"Bad CRC-32 for file 'mean\.npy'"):
        read_npz(io.BytesIO(understated), SHAPES)


def test_other_compressions_and_versions():
    file = make_archive(["mean", "std"], make_array_header((3,)), 0, zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match="mean"):
        read_npz(io.BytesIO(file), SHAPES)
    file = make_archive(["mean", "std"], b"\x93NUMPY\x03\x00" + bytes(MAX_HEADER_BYTES // 2), 0)
    with pytest.raises(ValueError, match=r"mean has version \(3, 0\) of the .npy format"):
        read_npz(io.BytesIO(file), SHAPES)
    assert (
        read_npz(io.BytesIO(make_archive(["a"], make_array_header((0,), version=(2, 0)), 0)), {"a": (0,)})[
            "a"
        ].size
        == 0
    )


def test_a_library_that_says_much():
    file = make_archive(["a" * 5000], make_array_header((3,)), 0)
    damaged = file.replace(b"a" * 5000, b"b" * 5000, 1)  # in front of the array, not in the list
    with pytest.raises(ValueError, match="BadZipFile: File name in directory") as error:
        read_npz(io.BytesIO(damaged), {"a" * 5000: (3,)})
    assert len(str(error.value)) == MAX_ERROR_CHARS


def test_no_archive():
    for data in (b"", b"PK\3\4", b"\x93NUMPY"):
        with pytest.raises(ValueError, match="BadZipFile"):
            read_npz(io.BytesIO(data), SHAPES)
