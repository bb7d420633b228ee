"""`python -m pipeline import-weights FILE`: weights from another tool in a network here."""

import sys
from hashlib import md5
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np

from cnn import Sequential, checkpoint
from cnn.atomic import write_text
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Environment, Network
from pipeline.config.architectures import build_chosen
from pipeline.config.params import load_params
from pipeline.config.yaml_files import to_yaml
from pipeline.errors import UserError, printable, reason
from pipeline.formats.weights import fit, read
from pipeline.paths import MODELS
from pipeline.report.facts import scale_in_words

UNKNOWN = "unknown"


def import_weights(path: Path) -> None:
    """Put the weights in `path` into the network that params.yaml chooses, as models/.

    UserError with all that does not fit, or if what is in models/ could not be restored; nothing changes
    then.
    """
    source = read(path)
    params, data = load_params(), Description.load()
    model, layers = build_chosen(params, data.image_shape, len(data.class_names))
    network = Network(
        architecture=params.model.architecture,
        layers=layers,
        data=data,
        epoch=0,  # of a training that is not known
        environment=Environment(
            machine=f"imported from {printable(path.name)}",
            numpy=UNKNOWN,
            numpy_simd=UNKNOWN,
            pillow=UNKNOWN,
            blas=UNKNOWN,
        ),
    )
    if source.network is not None:
        network = _checked(source.network, network, path)
    state, taken = fit(model, data.image_shape, source)
    model.load_state_dict(state)
    table = make_table(
        f"{printable(path.name)}, in {source.layout} layout", "here", "shape", "in the file", ""
    )
    for row in taken:
        table.add_row(row.name, " x ".join(map(str, row.shape)), printable(row.source), row.note)
    print_table(open_console(), table)
    accuracy = _try(model, data)
    check_restorable()
    checkpoint.save(Network.path, model.state_dict(), network.model_dump(mode="json"))
    write_text(MODELS / "architecture.yaml", to_yaml({network.architecture: layers}))
    print(
        f"\n{MODELS}/ holds these weights: they recognise {accuracy:.2%} of the validation images, as "
        f"{scale_in_words(data)}.\n"
        "predict, explain and playground use them. To measure them: python -m pipeline evaluate && "
        "python -m pipeline report\n"
        "They are not what train wrote: `dvc status` says so, and `dvc repro` brings that back. To go back "
        f"at once: dvc checkout --force {MODELS}"
    )


def check_restorable() -> None:
    """UserError if DVC could not restore a file that is now in models/: its cache does not hold it."""
    files = sorted(path for path in MODELS.rglob("*") if path.is_file())
    if not files:
        return
    asked = run([sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True)
    for path in files:
        digest = md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        kept = Path(asked.stdout.strip(), "files", "md5", digest[:2], digest[2:])
        if asked.returncode != 0 or not kept.is_file():
            raise UserError(
                f"{path} is not in DVC's cache, so it would be lost. If you want to keep it, move it away: "
                f"mv {MODELS} {MODELS}.before. If not: dvc checkout --force {MODELS}"
            )


def _checked(record: str, here: Network, path: Path) -> Network:
    """The record of the network that this project exported; UserError if it is not that of params.yaml."""
    try:
        there = Network.model_validate_json(record)
    except ValueError as error:
        raise UserError(
            f"The record of the network in {printable(path)} is damaged: {reason(error)}."
        ) from None
    if there.layers != here.layers:
        raise UserError(
            f"{printable(path)} holds another network than {here.architecture}, which params.yaml chooses. "
            f"Put this one into architectures.yaml, and its name into params.yaml as model.architecture:\n"
            f"{to_yaml({there.architecture: _type_first(there.layers)}).strip()}"
        )
    for key in ("class_names", "image_shape", "mean", "deviation"):
        if (theirs := getattr(there.data, key)) != (ours := getattr(here.data, key)):
            raise UserError(
                f"{printable(path)} comes from other data than data/processed holds: its {key} is {theirs}, "
                f"here {ours}. Change the section data of params.yaml, and: dvc repro preprocess"
            )
    return here.model_copy(update={"epoch": there.epoch, "environment": there.environment})


def _type_first(layers: Any) -> Any:
    """The layers as a person writes them; the file has sorted their keys."""
    if isinstance(layers, dict):
        return {key: _type_first(layers[key]) for key in sorted(layers, key=lambda key: (key != "type", key))}
    return [_type_first(layer) for layer in layers] if isinstance(layers, list) else layers


def _try(model: Sequential, data: Description) -> float:
    """The accuracy on validation images; UserError if outputs are not finite."""
    validation = load_examples("validation", data)
    with np.errstate(all="ignore"):
        outputs = model.predict(np.asarray(validation.images))
    if not np.isfinite(outputs).all():
        raise UserError("With these weights, outputs are not finite numbers. Nothing has changed.")
    return float((outputs.argmax(axis=1) == validation.targets.argmax(axis=1)).mean())
