"""Damage, bombs, and what is no file of weights at all: said for what it is, before it is used."""

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from tests.vision_models.weights.making import (
    assert_same,
    caffemodel,
    field,
    resnet20,
    save_file,
    torch,
    varint,
)
from vision_models import weights
from vision_models.weights import WeightsError

PAD = {"shortcut": "pad"}


def load(path, **options):
    return weights.load(path, "resnet20", PAD, **options)


def saved(state, path, **options):
    torch.save(state, path, **options)
    return path


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "name", ["x", "x.bin", "x.ckpt", "x.pt.tar", "x.pth.tar", "x.tar", "x.dat", "x.caffemodel"]
)
def test_the_content_tells_the_format_and_not_the_suffix(name, tmp_path):
    expected = load(saved(resnet20(), tmp_path / "plain.pth"))
    old = saved(resnet20(), tmp_path / f"old-{name}", _use_new_zipfile_serialization=False)
    save_file(resnet20(), tmp_path / f"other-{name}")
    for path in (saved(resnet20(), tmp_path / name), old, tmp_path / f"other-{name}"):
        assert_same(load(path), expected)


def test_a_caffemodel_of_any_suffix(tmp_path):
    layers = [("conv1", "Convolution", [np.ones((4, 3, 5, 5)), np.ones(4)])]
    for old in (False, True):
        path = caffemodel(tmp_path / "weights.bin", layers, old)
        with pytest.raises(WeightsError, match=r"tensors of no network .*conv1.weight"):
            load(path)


def test_flipped_bits_in_an_archive_are_noticed(tmp_path):
    """Every entry that is read has a CRC-32, which PyTorch itself does not compare."""
    path = saved(resnet20(), tmp_path / "x.pth")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        entries = [e for e in file.infolist() if "/data" in e.filename and e.file_size > 8]
    assert len(entries) > 20  # how many batches BatchNorm has seen, 8 bytes, is not read
    for entry in entries[::9]:
        name, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
        begin = entry.header_offset + 30 + name + extra
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged"):
            load(flipped(path, begin + entry.file_size // 2))


def test_an_archive_written_without_checksums_is_read(tmp_path):
    expected = load(saved(resnet20(), tmp_path / "plain.pth"))
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(resnet20(), tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(load(path), expected)


def test_the_hash_in_a_name_is_compared(tmp_path):
    content = saved(resnet20(), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    digest = hashlib.sha256(content.read_bytes()).hexdigest()
    # Digits alone would be taken for a date; the content has other bytes in each run.
    n = next(n for n in range(8, 64) if not digest[:n].isdigit())
    for name in (f"net-{digest[:n]}.th", f"net-{digest[: n + 4]} (1).pth", f"net-{digest}.pth"):
        path = tmp_path / name
        path.write_bytes(content.read_bytes())
        load(path)
        with pytest.raises(WeightsError, match=rf"its SHA-256 begins with {digest[:8]}"):
            load(flipped(path, -100))
    # Neither a date nor a word of other letters is a hash.
    for name in ("net-20240131.pth", "net-best.pth", "net-deadbee.pth", "net-0badf00dxyz.pth"):
        load(content.rename(tmp_path / name))
        content = tmp_path / name


def test_published_hashes(shared_data, tmp_path):
    name = "resnet20-12fca82f.th"
    content = shared_data(f"weights/{name}").read_bytes()
    (tmp_path / name).write_bytes(content)
    load(tmp_path / name)
    with pytest.raises(WeightsError, match="damaged or cut short, by its name"):
        load(flipped(tmp_path / name, len(content) // 2))
    (tmp_path / name).write_bytes(content[:-10])
    with pytest.raises(WeightsError, match="damaged or cut short, by its name"):
        load(tmp_path / name)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.7, 0.9999])
def test_old_files_cut_short(share, tmp_path):
    path = saved(resnet20(), tmp_path / "x.th", _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="cut short"):
        load(path)


def test_damage_is_never_called_code(tmp_path):
    """Seeded flips in all formats: a message, and none of them speaks of code."""
    rng, wrong = np.random.default_rng(0), 0
    paths = [
        saved(resnet20(), tmp_path / "a.pth"),
        saved(resnet20(), tmp_path / "b.pth", _use_new_zipfile_serialization=False),
        tmp_path / "c.safetensors",
    ]
    save_file(resnet20(), paths[-1])
    for path in paths:
        content = path.read_bytes()
        for place in rng.integers(0, 4000, 15):
            path.write_bytes(content)
            try:
                load(flipped(path, int(place)))
            except WeightsError as error:
                wrong += 1
                assert "code" not in str(error)
                assert len(str(error).splitlines()) <= 2
    assert wrong > 15


def test_programs_and_modules_are_named(tmp_path):
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    scripted.save(tmp_path / "script.pt")
    with pytest.raises(WeightsError, match=r"TorchScript.*torch.save\(torch.jit.load\(FILE\)"):
        load(tmp_path / "script.pt")
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    wrapped = {"epoch": 1, "model": module}
    for number, (content, zipped) in enumerate(
        (c, z) for c in (module, wrapped) for z in (True, False)
    ):
        path = tmp_path / f"{number}.pth"
        saved(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            WeightsError,
            match=r"whole pickled module \(torch.nn.modules.container.Sequential\).*torch.save\(",
        ):
            load(path)


def archive(path, **entries):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return path


def test_what_is_something_else_is_named(tmp_path):
    plain = saved(resnet20(), tmp_path / "plain.pth").read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        file.add(tmp_path / "plain.pth", "plain.pth")
    arrays = io.BytesIO()
    np.savez(arrays, a=np.ones(3))
    for content, message in [
        (b"", "empty"),
        (b"<html>", "failed download"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (gzip.compress(plain), "gzip; unpack"),
        (packed.getvalue(), "tar archive; unpack"),
        (arrays.getvalue(), "NumPy arrays"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (archive(tmp_path / "z", plain_dot_pth=plain).read_bytes(), "holds plain.pth; unpack"),
        (archive(tmp_path / "z", a__words="x").read_bytes(), "without a state dict, of a/words"),
        (pickle.dumps([1, 2]), "no tensors by name, but a list"),
        (pickle.dumps({"a": 1}), "no tensors by name, but a;"),
    ]:
        path = tmp_path / "x.pth"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            load(path)


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder.pth").mkdir()
    for name, message in [
        ("pipe.pth", "no regular file"),
        ("folder.pth", "a directory, where a file"),
        ("x" * 300, "cannot be read|no such file"),
        ("no/such.pth", "there is no such file"),
    ]:
        with pytest.raises(WeightsError, match=message):
            load(tmp_path / name)
    unusual = os.fsencode(tmp_path) + b"/name with a space \xff.pth"
    path = saved(resnet20(), tmp_path / "x.pth")
    load(path.rename(os.fsdecode(unusual)))


# Bombs: what is declared is compared with what the network needs before it is allocated.


def test_a_tensor_of_a_terabyte_in_a_file_of_a_kilobyte(tmp_path):
    state = resnet20() | {"conv1.weight": torch.zeros(1).expand(500_000, 500_000)}
    for zipped in (True, False):
        path = saved(state, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match=r"conv1.weight is 500000x500000 there, 16x3x3x3"):
            load(path)
    sparse = torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), (500_000, 500_000))
    saved(resnet20() | {"bn1.weight": sparse}, path)
    with pytest.raises(WeightsError, match=r"bn1.weight is 500000x500000 there, 16 here"):
        load(path)
    # Beside the network it is nobody's business.
    saved({"state_dict": resnet20(), "other": state["conv1.weight"]}, path)
    assert load(path).notes


def test_strides_are_followed(tmp_path):
    """Views of other tensors, of another order of axes, and repeated along an axis."""
    state, plain = resnet20(), resnet20()
    name = "layer1.0.conv1.weight"
    state[name] = state[name].to(memory_format=torch.channels_last)
    assert not state[name].is_contiguous()
    whole = torch.arange(100.0)
    state["bn1.weight"], plain["bn1.weight"] = whole[3:35:2], whole[3:35:2].clone()
    state["bn1.bias"], plain["bn1.bias"] = torch.ones(1).expand(16), torch.ones(16)
    expected = load(saved(plain, tmp_path / "plain.pth"))
    for zipped in (True, False):
        path = saved(state, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        assert_same(load(path), expected)


def test_storages_that_lie(tmp_path):
    """A pickle that declares more than its storage has, or more objects than it can hold."""
    path = saved({"conv1.weight": torch.ones(3), "x": torch.ones(2)}, tmp_path / "x.pth")
    with zipfile.ZipFile(path) as file:
        entries = {e.filename: file.read(e) for e in file.infolist()}
    huge = b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."
    network = saved(resnet20(), tmp_path / "network.pth")
    with zipfile.ZipFile(network) as file:
        whole = {e.filename: file.read(e) for e in file.infolist()}
    short = whole | {"network/data/0": whole["network/data/0"][:-4]}
    for changed, message in [
        (entries | {"x/data.pkl": huge}, "damaged"),
        (short, "damaged, storage 0 is of another length"),
        ({n: c for n, c in whole.items() if n != "network/data/3"}, "data/3 is missing"),
    ]:
        with zipfile.ZipFile(path, "w") as file:
            for name, value in changed.items():
                file.writestr(name, value)
        with pytest.raises(WeightsError, match=message):
            load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in whole.items():
            file.writestr(name, value)
    with pytest.raises(WeightsError, match="a compressed archive"):
        load(path)
    path.write_bytes(huge)
    with pytest.raises(WeightsError, match="damaged"):
        load(path)


def safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_headers_that_lie(tmp_path):
    path = tmp_path / "x.safetensors"
    huge = {"dtype": "F32", "shape": [500_000, 500_000], "data_offsets": [0, 10**12]}
    for header, data, message in [
        ({"a": huge}, b"", "declares 1,000,0.* bytes"),
        ({"a": huge | {"data_offsets": [0, 4]}}, b"0000", "damaged, its header"),
        ({"a": huge | {"shape": [-1], "data_offsets": [4, 0]}}, b"", "damaged, its header"),
        ({"a": huge | {"shape": [1], "data_offsets": [0, 4]}}, b"0" * 9, "declares .* bytes"),
        ({"a": 3}, b"", "damaged, its header"),
        ({"a": {"dtype": "F32"}}, b"", "damaged, its header"),
        (b'{"a": ', b"", "damaged, its header"),
        (b"[" * 50_000, b"", "no .safetensors file"),
        (b'{"a":' * 50_000, b"", "damaged, its header"),
    ]:
        with pytest.raises(WeightsError, match=message):
            load(safetensors(path, header, data))
    path.write_bytes(struct.pack("<Q", 2**62) + b'{"a": 1}')
    with pytest.raises(WeightsError, match=r"no .safetensors file, or cut short"):
        load(path)
    path.write_bytes(struct.pack("<Q", 90_000_000) + b'{"a": 1}')
    with pytest.raises(WeightsError, match="cut short within its header"):
        load(path)


def test_messages_of_caffe_that_lie(tmp_path):
    path = tmp_path / "x.caffemodel"
    long = varint(5 << 3 | 2) + varint(10**12)  # `data` of a terabyte, of which nothing follows
    wide = field(7, field(1, varint(10**6) * 3)) + field(5, np.ones(4, np.float32).tobytes())
    for blob, message in [(long, "cut short"), (wide, "conv1 has 4 numbers for")]:
        layer = field(1, b"conv1") + field(2, b"Convolution") + field(7, blob)
        path.write_bytes(field(1, b"net") + field(100, layer))
        with pytest.raises(WeightsError, match=message):
            load(path)
    with open(path, "wb") as file:
        file.write(field(1, b"net"))
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(WeightsError, match=r"longer than any .caffemodel can be"):
        load(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_numbers_are_cast_or_refused(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    write = torch.save if suffix == ".pth" else save_file
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        state = {n: t.to(kind) if t.is_floating_point() else t for n, t in resnet20().items()}
        write(state, path)
        loaded = load(path)
        expected = state["conv1.weight"].to(torch.float32).numpy().transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(loaded.params["conv1"]["kernel"], expected)
        assert loaded.params["conv1"]["kernel"].dtype == np.float32
    for value, message in [
        (torch.ones(16, dtype=torch.int8), "bn1.weight is int8; weights are floating-point"),
        (torch.ones(16, dtype=torch.bool), "bn1.weight is bool"),
        (torch.full((16,), 1e300, dtype=torch.float64), "not finite .16 numbers in all"),
        (torch.full((16,), float("nan")), "not finite .16 numbers in all"),
    ]:
        write(resnet20() | {"bn1.weight": value}, path)
        with pytest.raises(WeightsError, match=message):
            load(path)
    write(resnet20() | {"bn1.running_var": -torch.ones(16)}, path)
    with pytest.raises(WeightsError, match=r"bn1.running_var holds variances below zero"):
        load(path)
    # What is not taken may be anything.
    write(resnet20() | {"linear.weight": torch.full((10, 64), float("nan"))}, path)
    load(path, new_head=True)


def test_tensors_of_other_kinds_are_named(tmp_path):
    path = tmp_path / "x.pth"
    sparse = torch.ones(16).to_sparse()
    for value, kind in [(sparse, "sparse"), (torch.ones(16, device="meta"), "meta")]:
        saved(resnet20() | {"bn1.weight": value}, path)
        with pytest.raises(WeightsError, match=f"bn1.weight is .*{kind}"):
            load(path)
