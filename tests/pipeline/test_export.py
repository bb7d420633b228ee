"""The commands export and import-weights in a project: what they write, and what they refuse."""

import json
import shutil
import sys

import onnx
import pytest
from projects import trained_project
from ruamel.yaml import YAML

from pipeline import __main__ as program
from pipeline.formats import extra, hub, judge


@pytest.fixture
def other(tmp_path_factory, tmp_path, monkeypatch):
    """A copy of a project with a trained network, in which the test runs."""
    folder = shutil.copytree(trained_project(tmp_path_factory), tmp_path / "other")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def command(monkeypatch):
    """command(name, …): the message with which `python -m pipeline NAME …` fails here, or None."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return None if ended.value.code in (0, None) else str(ended.value.code)

    return call


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_exports_have_the_same_bytes_and_the_files_say_what_they_are(other, command):
    assert command("export", "onnx", "onnx_bytes", "safetensors") is None
    first = files(other / "export")
    shutil.rmtree(other / "export")
    assert command("export", "safetensors", "onnx_bytes", "onnx", "onnx") is None
    assert files(other / "export") == first
    proto = onnx.load_model_from_string(first["onnx/model.onnx"])
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["class_names"]) == [*"0123456789"]
    assert json.loads(metadata["network"])["architecture"] == "baseline"
    assert {name for name in first if name.startswith("onnx/")} == {
        *("onnx/README.md", "onnx/model.onnx"),
        *(f"onnx/{name}" for name in hub.PICTURES),
    }


def test_the_readme_has_the_front_matter_that_hubs_read(other, command):
    assert command("export", "safetensors") is None
    _, front, text = (other / "export/safetensors/README.md").read_text().split("---\n", 2)
    content = YAML(typ="safe").load(front)
    assert (content["license"], content["pipeline_tag"]) == ("mit", "image-classification")
    (result,) = content["model-index"][0]["results"]
    accuracy = json.loads((other / "reports/metrics.json").read_text())["test"]["accuracy"]
    assert result["dataset"] == {"type": "digits", "name": result["dataset"]["name"], "split": "test"}
    assert result["metrics"][0] == {"type": "accuracy", "name": "Accuracy", "value": accuracy}
    assert (other / "reports/model_card.md").read_text().strip() in text


def test_a_file_that_is_not_judged_equal_leaves_the_old_one(other, command, monkeypatch):
    assert command("export", "onnx") is None
    before = files(other / "export")
    monkeypatch.setattr(judge, "BOUND", 0.0)
    assert command("export", "onnx").startswith("error: The ONNX file does not compute what the network does")
    assert files(other / "export") == before


def test_a_missing_package_is_named_with_the_way_to_get_it(other, command, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    wanted = "python -m pip install 'onnx>=1.23,<1.24' 'onnxruntime>=1.32,<2'"
    assert command("export") == (
        "error: This needs onnx and onnxruntime, from the extra `export`, which `make run` does not install. "
        f"To install: {wanted}"
    )
    assert command("export", "safetensors") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onx"], "error: Unknown format 'onx'. Did you mean 'onnx'? Known: onnx, onnx_bytes, safetensors."),
        (
            ["--to", "models/export"],
            "error: models/ is what the train stage wrote, and another file in it would make that stage stale. "
            "Choose another folder: --to FOLDER",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(other, command, arguments, message):
    assert command("export", *arguments) == message


def test_reports_of_another_network_are_not_published_with_this_one(other, command):
    path = other / "reports/metrics.json"
    content = json.loads(path.read_text())
    content["test"]["accuracy"] -= 0.02
    path.write_text(json.dumps(content))
    assert command("export").startswith("error: reports/metrics.json does not belong to models/model.npz")
    path.unlink()
    assert command("export") == "error: reports/metrics.json is missing. Make it with: dvc repro evaluate"
    assert not (other / "export").exists()


def test_a_file_in_place_of_the_folder_is_one_message(other, command):
    (other / "export").write_text("a file")
    assert command("export", "safetensors") == "error: Not a directory: export/safetensors"


def test_links_in_the_way_are_replaced_and_not_followed(other, command):
    assert command("export", "safetensors") is None
    written = other / "export/safetensors/model.safetensors"
    content = written.read_bytes()
    (other / "elsewhere").write_text("mine")
    written.unlink()
    written.symlink_to(other / "elsewhere")
    assert command("export", "safetensors") is None
    assert (other / "elsewhere").read_text() == "mine"
    assert written.read_bytes() == content
    assert not written.is_symlink()


def test_weights_come_in_only_if_dvc_can_restore_what_was_there(other, command):
    assert command("export", "safetensors") is None
    file = "export/safetensors/model.safetensors"
    model = other / "models/model.npz"
    before = model.read_bytes()
    (other / "models/notes.txt").write_text("mine")
    assert command("import-weights", file) == (
        "error: models/notes.txt is not in DVC's cache, so it would be lost. If you want to keep it, move it "
        "away: mv models models.before. If not: dvc checkout --force models"
    )
    (other / "models").rename(other / "models.before")
    assert command("import-weights", file) is None
    assert model.read_bytes() == before
    assert (other / "models/architecture.yaml").read_bytes() == (
        other / "models.before/architecture.yaml"
    ).read_bytes()


def test_an_export_of_another_network_or_of_other_data_is_refused(other, command):
    assert command("export", "safetensors") is None
    before = (other / "models/model.npz").read_bytes()
    file = "export/safetensors/model.safetensors"
    params = other / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("architecture: baseline", "architecture: sample"))
    assert command("import-weights", file) == (
        f"error: {file} holds another network than sample, which params.yaml chooses. Put this one into "
        "architectures.yaml, and its name into params.yaml as model.architecture:\n"
        "baseline:\n"
        "- {type: conv2d, kernel_size: 3, out_channels: 8}\n- {type: relu}\n- {type: max_pool2d, kernel_size: 2}\n"
        "- {type: flatten}\n- {type: dense, out_features: classes}"
    )
    params.write_text(text)
    described = other / "data/processed/dataset.json"
    content = json.loads(described.read_text())
    described.write_text(json.dumps(content | {"mean": [0.5]}))
    assert command("import-weights", file) == (
        f"error: {file} comes from other data than data/processed holds: its mean is [0.0], here [0.5]. "
        "Change the section data of params.yaml, and: dvc repro preprocess"
    )
    assert (other / "models/model.npz").read_bytes() == before
