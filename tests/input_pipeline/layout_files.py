"""One set of photographs in every layout in which people have ImageNet."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from input_pipeline.datasets.imagenet import imagenet_synsets
from tests.conftest import REAL_DATA

TRAIN_CLASSES = ("n01440764", "n01751748", "n02105855", "n02123597", "n04263257", "n15075141")
# The challenge's own, of images 1 to 4.
KNOWN = ("n01751748", "n09193705", "n02105855", "n04263257")


class Photo(NamedTuple):
    split: str
    synset: str
    name: str
    content: bytes


def photographs(train=40, validation=20):
    """Real photographs where there are some, under names of the challenge; not in their order."""
    rng = np.random.default_rng(0)
    real = sorted((REAL_DATA / "imagenet_sample" / "train").glob("*/*.JPEG"), key=os.path.getsize)
    made = []
    for row in range(train + validation):
        if row < len(real):
            content = real[row].read_bytes()
        else:
            file = io.BytesIO()
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            coarse.resize((60 + row, 50), Image.BICUBIC).save(file, "JPEG", quality=95)
            content = file.getvalue()
        if row < train:
            synset = TRAIN_CLASSES[row % len(TRAIN_CLASSES)]
            # _2 comes after _10 as text.
            made.append(Photo("train", synset, f"{synset}_{row + 2}.JPEG", content))
        else:
            k = row - train + 1
            number = k if k <= len(KNOWN) else k * 2311
            synset = KNOWN[(k - 1) % len(KNOWN)]
            made.append(Photo("val", synset, f"ILSVRC2012_val_{number:08d}.JPEG", content))
    return [made[row] for row in rng.permutation(len(made))]


def of(photos, split):
    return [photo for photo in photos if photo.split == split]


def write(path: Path, content: bytes | str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def folders(root, photos, flat=False):
    for photo in photos:
        inside = "" if flat and photo.split != "train" else photo.synset
        write(root / photo.split / inside / photo.name, photo.content)


def tar_bytes(members, **options):
    """A tar of (name, content) pairs."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=options.pop("mode", "w"), **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


# Sources of validation labels


def kit_ids():
    """The synset of each ID, 1 to 1000: the challenge's, or any where its list is not there."""
    path = REAL_DATA / "ilsvrc2012_ids.txt"
    if path.exists():
        return [line.split()[1] for line in path.read_text().splitlines()]
    return list(np.random.default_rng(1).permutation(imagenet_synsets()))


def meta_mat(ids, year=2012):
    from scipy.io import savemat

    fields = (f"ILSVRC{year}_ID", "WNID", "words", "num_children")
    rows = [(number, synset, "some words", 0.0) for number, synset in enumerate(ids, 1)]
    rows.append((1001, "n00001740", "entity", 3.0))  # a synset above them
    synsets = np.array(rows, [(field, object) for field in fields]).reshape(-1, 1)
    file = io.BytesIO()
    savemat(file, {"synsets": synsets})
    return file.getvalue()


def number(photo):
    return int(photo.name.split("_")[-1].split(".")[0])


def ground_truth(photos, ids, count=50_000, split="val"):
    """IDs of all images, those that are not there among them."""
    of_image = {number(photo): ids.index(photo.synset) + 1 for photo in of(photos, split)}
    return "".join(f"{of_image.get(k, k % 1000 + 1)}\n" for k in range(1, count + 1))


def map_clsloc(ids):
    return "".join(f"{synset} {k} some_word\n" for k, synset in enumerate(ids, 1))


def solution_csv(photos):
    lines = [f"{p.name[:-5]},{p.synset} 1 2 30 40 {p.synset} 5 6 7 8 " for p in of(photos, "val")]
    return "\n".join(["ImageId,PredictionString", *lines]) + "\n"


def val_txt(photos):
    synsets = imagenet_synsets()
    return "".join(f"{p.name} {synsets.index(p.synset)}\n" for p in of(photos, "val"))


def kit(photos, ids, year=2012, folder="ILSVRC2012_devkit_t12"):
    members = [
        (f"{folder}/readme.txt", b"read me"),
        (f"{folder}/data/meta.mat", meta_mat(ids, year)),
        (
            f"{folder}/data/ILSVRC{year}_validation_ground_truth.txt",
            ground_truth(photos, ids).encode(),
        ),
    ]
    return tar_bytes(members, mode="w:gz")


# Layouts: each writes the photographs to `root`.


def kaggle(root, photos):
    folders(root / "ILSVRC" / "Data" / "CLS-LOC", photos, flat=True)
    write(root / "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG", photos[0].content)
    write(root / "ILSVRC/ImageSets/CLS-LOC/val.txt", "ILSVRC2012_val_00000001 1\n")
    write(root / "LOC_val_solution.csv", solution_csv(photos))
    write(root / "LOC_synset_mapping.txt", "".join(f"{s} words\n" for s in imagenet_synsets()))


def original_tars(root, photos):
    inner = {}
    for photo in of(photos, "train"):
        inner.setdefault(photo.synset, []).append((photo.name, photo.content))
    outer = [(f"{synset}.tar", tar_bytes(inner[synset])) for synset in sorted(inner, reverse=True)]
    write(root / "ILSVRC2012_img_train.tar", tar_bytes(outer, format=tarfile.GNU_FORMAT))
    flat = [(photo.name, photo.content) for photo in of(photos, "val")]
    write(root / "ILSVRC2012_img_val.tar", tar_bytes(flat))
    write(root / "ILSVRC2012_devkit_t12.tar.gz", kit(photos, kit_ids()))


def synset_tars(root, photos):
    """The training tar unpacked once."""
    original_tars(root, photos)
    with tarfile.open(root / "ILSVRC2012_img_train.tar") as tar:
        tar.extractall(root / "train", filter="data")
    (root / "ILSVRC2012_img_train.tar").unlink()


def webdataset(root, photos, size=9):
    synsets = imagenet_synsets()
    for split in ("train", "val"):
        rows = of(photos, split)
        for shard, start in enumerate(range(0, len(rows), size)):
            members = []
            for photo in rows[start : start + size]:
                stem = photo.name[:-5]
                members.append((f"{stem}.cls", str(synsets.index(photo.synset)).encode()))
                members.append((f"{stem}.json", b"{}"))
                members.append((f"{stem}.jpg", photo.content))
            write(root / f"imagenet-{split}-{shard:06d}.tar", tar_bytes(members))


def hub_table(rows, class_names, labels, paths=True):
    """A table as the Hub has it, with the names of the classes in its metadata."""
    import pyarrow as pa

    image = [
        {"bytes": p.content, "path": f"{p.name[:-5]}_{p.synset}.JPEG" if paths else None}
        for p in rows
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(image, kind), "label": pa.array(labels, pa.int64())})
    label = {"names": list(class_names), "_type": "ClassLabel"}
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    if class_names:
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    return table


def parquet(root, photos, files=3, class_names=None, paths=True):
    import pyarrow.parquet as pq

    synsets = imagenet_synsets()
    names = [f"word {label}" for label in range(1000)] if class_names is None else class_names
    for split, spelled in (("train", "train"), ("val", "validation")):
        rows = of(photos, split)
        for file in range(files):
            part = rows[file::files]
            labels = [synsets.index(photo.synset) for photo in part]
            path = root / "data" / f"{spelled}-{file:05d}-of-{files:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(hub_table(part, names, labels, paths), path, row_group_size=4)
    test = [photo._replace(synset="n00000000") for photo in photos[:2]]
    pq.write_table(hub_table(test, names, [-1, -1]), root / "data/test-00000-of-00001.parquet")


def arrow(root, photos):
    import pyarrow as pa

    synsets = imagenet_synsets()
    write(root / "dataset_dict.json", json.dumps({"splits": ["train", "validation"]}))
    for split, spelled in (("train", "train"), ("val", "validation")):
        rows, files = of(photos, split), []
        for file in range(2):
            part = rows[file::2]
            labels = [synsets.index(photo.synset) for photo in part]
            table = hub_table(part, [f"word {label}" for label in range(1000)], labels)
            path = root / spelled / f"data-{file:05d}-of-00002.arrow"
            path.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
                out.write_table(table, max_chunksize=6)
            files.append({"filename": path.name})
        write(root / spelled / "state.json", json.dumps({"_data_files": files, "_split": spelled}))
        label = {"names": ["word 0", "word 1"], "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": label}
        texts = dict.fromkeys(("citation", "description", "homepage", "license"), "")
        write(root / spelled / "dataset_info.json", json.dumps({"features": features, **texts}))


def imagenet2010(root, photos, ids):
    """The tars of 2010 with a labelled test set, and good copies of images that were damaged.

    The photographs for validation are its test images as well.
    """
    renamed = [p._replace(name=p.name.replace("2012", "2010")) for p in photos]
    inner, patches = {}, []
    for row, photo in enumerate(of(renamed, "train")):
        content = photo.content
        if row == 3:
            content = b"damaged"
            patches.append((f"patch_images/train/{photo.name}", photo.content))
        inner.setdefault(photo.synset, []).append((photo.name, content))
    outer = [(f"{synset}.tar", tar_bytes(members)) for synset, members in inner.items()]
    write(root / "ILSVRC2010_images_train.tar", tar_bytes(outer))
    write(root / "patch_images.tar", tar_bytes(patches))
    for split in ("val", "test"):
        flat = [(f"{split}/{p.name.replace('val', split)}", p.content) for p in of(renamed, "val")]
        write(root / f"ILSVRC2010_images_{split}.tar", tar_bytes(flat))
    write(
        root / "ILSVRC2010_devkit-1.0.tar.gz",
        kit(renamed, ids, year=2010, folder="devkit-1.0"),
    )
    truth = ground_truth(renamed, ids, 150_000)
    write(root / "ILSVRC2010_test_ground_truth.txt", truth)
