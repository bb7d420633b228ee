"""The datasets by name: each module in this folder defines one as DATASET."""

from importlib import import_module
from pkgutil import iter_modules

from pipeline.data.dataset import Dataset

DATASETS: dict[str, Dataset] = {
    module.name: import_module(f"{__name__}.{module.name}").DATASET for module in iter_modules(__path__)
}
