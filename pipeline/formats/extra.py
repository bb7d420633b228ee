"""The packages of the extra `export`, which only the formats of other tools need."""

from importlib.util import find_spec

from pipeline.errors import UserError

EXPORT = {"onnx": "onnx>=1.23,<1.24", "onnxruntime": "onnxruntime>=1.32,<2"}  # as in pyproject.toml


def require(*packages: str) -> None:
    """UserError that says how to install those of `packages` that are missing."""
    if missing := [EXPORT[name] for name in packages if find_spec(name) is None]:
        names = " and ".join(name for name in packages if find_spec(name) is None)
        raise UserError(
            f"This needs {names}, from the extra `export`, which `make run` does not install. To install: "
            f"python -m pip install {' '.join(map(repr, missing))}"
        )
