"""The weights in an ONNX file, found by following its nodes; nothing in it is executed."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, external_data_helper, helper, numpy_helper

from pipeline.formats.extra import require
from pipeline.formats.safetensors import FormatError
from pipeline.formats.weights import NETWORK, Arrays, Group, Source, to_layout

LAST = [0, 2, 3, 1]  # the transposition to channels last
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
DEEPEST = 8  # nodes between an array and the layer that uses it


def read(path: Path) -> Source:
    """What the file holds. FormatError if it cannot be used.

    Arrays in other files are read only from the file's own folder, as onnx itself checks.
    """
    require("onnx")
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
        external_data_helper.load_external_data_for_model(proto, str(path.resolve().parent))
        return _source(proto)
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(f"a file of its weights cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise FormatError("it claims more numbers than fit into memory") from None
    except Exception as error:  # onnx raises many kinds of errors
        raise FormatError(f"it is damaged, or no ONNX file ({' '.join(str(error).split())[:300]})") from None


def _source(proto: ModelProto) -> Source:
    graph = _Constants(proto)
    groups: list[Group] = []
    pixel_by_pixel = False
    for node in proto.graph.node:
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type in ("Flatten", "Reshape") and node.input:
            before = graph.producers.get(node.input[0])
            pixel_by_pixel |= before is not None and _permutation(before) == LAST
        if (group := graph.group(node, options)) is not None:
            groups.append(group)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    own = None
    if NETWORK in metadata and proto.producer_name == "numpy-cnn":
        own = {
            name: to_layout(array) if name.endswith(".kernel") else array
            for name, array in ((name, graph.array(name)) for name in graph.initializers)
            if array is not None
        }
    left = [
        name
        for name, tensor in graph.initializers.items()
        if len(tensor.dims) > 1 and name not in graph.used and tensor.data_type in FLOATS
    ]
    return Source(groups, left, "ONNX's", pixel_by_pixel, own, metadata.get(NETWORK) if own else None)


class _Constants:
    """The constant arrays of a graph, and the layers that use them."""

    def __init__(self, proto: ModelProto) -> None:
        self.initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.producers = {name: node for node in proto.graph.node for name in node.output}
        self.consumers = {name: node for node in proto.graph.node for name in node.input}
        self.used: set[str] = set()

    def array(self, name: str, depth: int = 0) -> NDArray[Any] | None:
        """The array of this name, seen through Identity and Transpose; None if it is computed."""
        if name in self.initializers:
            self.used.add(name)
            known: NDArray[Any] = numpy_helper.to_array(self.initializers[name])
            return known.astype(np.float32) if known.dtype.name == "bfloat16" else known
        node = self.producers.get(name)
        if node is None or depth > DEEPEST:
            return None
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            return numpy_helper.to_array(value) if isinstance(value, TensorProto) else None
        if node.op_type in ("Identity", "Transpose"):
            array = self.array(node.input[0], depth + 1)
            if array is None or node.op_type == "Identity":
                return array
            return array.transpose(_permutation(node))
        return None

    def group(self, node: Any, options: dict[str, Any]) -> Group | None:
        """The layer that this node computes; None if it has no weights."""
        match node.op_type:
            case "Conv":
                return self._layer(node, "conv2d", ["kernel", "bias"])
            case "Gemm":
                if options.get("transA") or {options.get("alpha", 1.0), options.get("beta", 1.0)} != {1.0}:
                    raise FormatError(f"its Gemm {node.name!r} scales or transposes, unlike a dense layer")
                return self._layer(node, "dense", ["weight", "bias"], transposed=not options.get("transB"))
            case "MatMul":
                found = self._layer(node, "dense", ["weight"], transposed=True)
                after = self.consumers.get(node.output[0])
                if found and after is not None and after.op_type == "Add":
                    for name in after.input:
                        if (bias := self.array(name)) is not None:
                            found.arrays["bias"], found.names["bias"] = bias.reshape(-1), name
                return found
            case "BatchNormalization":
                parts = ["gamma", "beta", "running_mean", "running_var"]
                return self._layer(node, "batch_norm", parts, epsilon=options.get("epsilon", 1e-5))
            case "LayerNormalization":
                return self._layer(
                    node, "layer_norm", ["gamma", "beta"], epsilon=options.get("epsilon", 1e-5)
                )
        return None

    def _layer(
        self,
        node: Any,
        kind: str,
        parts: list[str],
        *,
        transposed: bool = False,
        epsilon: float | None = None,
    ) -> Group | None:
        """The arrays that are the node's inputs after the first, in the library's layout."""
        arrays: Arrays = {}
        names = {}
        for part, name in zip(parts, list(node.input)[1:], strict=False):
            array = self.array(name) if name else None
            if array is None:
                if name and part in ("kernel", "weight"):
                    return None  # a product of two results has no weights
                continue
            if part in ("kernel", "weight") and not transposed:
                array = to_layout(array)
            arrays[part] = array.reshape(-1) if part == "bias" else array
            names[part] = name
        name = names.get(parts[0], node.name).rpartition(".")[0] or node.name or node.output[0]
        return Group(name, kind, arrays, names, epsilon)


def _permutation(node: Any) -> list[int] | None:
    """The permutation of a Transpose; None if it reverses all axes, or for any other node."""
    if node.op_type != "Transpose":
        return None
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == "perm"]
    return list(found[0]) if found else None
