"""The binary archive of CIFAR-10, read as a stream: nothing is unpacked to the disk, and no name is trusted.

It is a gzipped tar file with five files of training images and one of test images. Each of them holds records
of 3,073 bytes: the label, and 32x32 bytes of red, then green, then blue.
Source: Krizhevsky, "The CIFAR-10 dataset", section "Binary version".
"""

import tarfile
import zlib
from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path

import numpy as np

from pipeline.data.dataset import Bytes, DataFile, RawData
from pipeline.errors import damage_reported

SIDE, CHANNELS = 32, 3
RECORD = 1 + CHANNELS * SIDE * SIDE
LARGEST_MEMBER = 2**26  # bytes; those of the archive have 31 MB
MOST_MEMBERS = 100
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"


def read_cifar_archive(folder: Path, files: Sequence[DataFile]) -> RawData:
    """The images in the archive; UserError if it is not the published one, or holds something else."""
    (file,) = files
    path = folder / file.name
    with damage_reported(path, "fetch"):
        with path.open("rb") as content:
            if file_digest(content, "sha256").hexdigest() != file.sha256:
                raise ValueError("its SHA-256 is not the published one")
        batches = read_members(path, (*TRAIN, TEST))
        train = np.concatenate([batches[name] for name in TRAIN])
        return RawData(*to_images(train), *to_images(batches[TEST]))


def read_members(path: Path, names: Sequence[str]) -> dict[str, Bytes]:
    """The records (n, 3073) in each of the members `names`, in any folder; ValueError if one is wrong."""
    found: dict[str, Bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for number, member in enumerate(archive):
                if number >= MOST_MEMBERS:
                    raise ValueError(f"it holds more than {MOST_MEMBERS} members")
                if member.size > LARGEST_MEMBER:
                    raise ValueError(
                        f"{member.name!r} claims {member.size:,} bytes, more than {LARGEST_MEMBER:,}"
                    )
                name = member.name.rpartition("/")[2]
                if name not in names:
                    continue
                if not member.isreg():
                    raise ValueError(f"{member.name!r} is a link or a folder, not a file")
                if name in found:
                    raise ValueError(f"it holds {name} twice")
                found[name] = _records(archive, member)
    except (tarfile.TarError, EOFError, TypeError, zlib.error) as error:  # TypeError: a header cut short
        raise ValueError(f"it does not unpack ({error})") from None
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{', '.join(missing)} is missing in it")
    return found


def _records(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Bytes:
    file = archive.extractfile(member)
    content = b"" if file is None else file.read(LARGEST_MEMBER)
    if len(content) != member.size or not content or len(content) % RECORD:
        raise ValueError(
            f"{member.name!r} holds {len(content):,} bytes, which is no whole number of records of {RECORD:,}"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD)


def to_images(records: Bytes) -> tuple[Bytes, Bytes]:
    """(images (n, 32, 32, 3), labels (n,)); in a record, the channels are the first axis."""
    planes = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0]
