"""The fetch stage: bring the dataset's files to data/raw, and check their hashes."""

from typing import TYPE_CHECKING

from cnn.atomic import write_text
from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import OWN
from pipeline.data.sources import fetch_file
from pipeline.paths import RAW

if TYPE_CHECKING:
    from pipeline.config.params import Data


def fetch(data: "Data") -> None:
    """Bring the files of `data.dataset` to data/raw/DATASET; intact files that are there are kept.

    Own images are read where they are, by preprocess. A file says so, since DVC warns if data/raw is empty.
    It does not give the value of data.path, on which this stage does not depend.
    """
    folder = RAW / data.dataset
    if data.dataset == OWN:
        write_text(folder / "where.txt", "Own images are read from data.path of params.yaml.\n")
        print(f"Own images are read from {data.path}: there is nothing to fetch.")
        return
    dataset = DATASETS[data.dataset]
    if dataset.write_files is not None:
        dataset.write_files(folder)
    else:
        for file in dataset.files:
            fetch_file(file, folder / file.name, dataset.mirrors)
    print(f"{dataset.title}: {len(dataset.files)} files in {folder}.")
