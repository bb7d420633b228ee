"""A device double: arrays over NumPy's that refuse what CuPy refuses, and note each function that is used.

A `DeviceArray` stands for CuPy's ndarray where there is no GPU. As there, no array moves between host and
device unless it is asked for (`asarray`, `get`), ufuncs take no NumPy arrays and no lists, reductions return
arrays without axes and not numbers, and only functions, methods and keywords that CuPy has can be called.
The numbers are NumPy's. What may be used is listed here by hand from CuPy's documentation (version 14), and
anything else is refused, even if CuPy has it. `python tests/cnn/device_double.py` compares the list with an
installed CuPy, which needs no GPU.
"""

import importlib
import inspect
import types

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

# The functions of CuPy that may be called through NumPy's, with the keywords that CuPy's take; ufuncs apart.
FUNCTIONS = {
    "arange": {"dtype"},
    "array_equal": set(),
    "asarray": {"dtype", "order"},
    "ascontiguousarray": {"dtype"},
    "broadcast_to": set(),
    "clip": {"out"},
    "concatenate": {"axis", "out"},
    "einsum": set(),
    "empty": {"dtype", "order"},
    "empty_like": {"dtype", "order", "shape"},
    "lib.stride_tricks.sliding_window_view": {"axis"},
    "linalg.norm": {"ord", "axis", "keepdims"},
    "ndim": set(),
    "outer": {"out"},
    "pad": {"mode"},
    "put_along_axis": {"axis"},
    "result_type": set(),
    "take_along_axis": {"axis"},
    "tile": set(),
    "where": set(),
    "zeros": {"dtype", "order"},
    "zeros_like": {"dtype", "order", "shape"},
}
TRANSFERS = {"asarray", "ascontiguousarray"}  # take arrays of the host, as they say
# Ufuncs with one result.
UFUNCS = {
    "absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "bitwise_and",
    "bitwise_count", "bitwise_or", "bitwise_xor", "cbrt", "ceil", "copysign", "cos", "cosh", "deg2rad", "degrees",
    "divide", "equal", "exp", "exp2", "expm1", "fabs", "float_power", "floor", "floor_divide", "fmax", "fmin",
    "fmod", "gcd", "greater", "greater_equal", "heaviside", "hypot", "invert", "isfinite", "isinf", "isnan", "lcm",
    "ldexp", "left_shift", "less", "less_equal", "log", "log10", "log1p", "log2", "logaddexp", "logaddexp2",
    "logical_and", "logical_not", "logical_or", "logical_xor", "matmul", "maximum", "minimum", "multiply",
    "negative", "nextafter", "not_equal", "positive", "power", "rad2deg", "radians", "reciprocal", "remainder",
    "right_shift", "rint", "sign", "signbit", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "trunc",
}  # fmt: skip
KEYWORDS_OF_UFUNCS = {"out", "dtype"}
REDUCTION = {"axis", "out", "keepdims"}
METHODS = {
    "argmax": REDUCTION,
    "astype": {"order", "copy"},
    "clip": {"out"},
    "copy": {"order"},
    "max": REDUCTION,
    "mean": REDUCTION | {"dtype"},
    "min": REDUCTION,
    "ravel": {"order"},
    "reshape": {"order"},
    "sum": REDUCTION | {"dtype"},
    "swapaxes": set(),
    "take": {"axis", "out"},
    "transpose": set(),
    "view": set(),
}
ATTRIBUTES = {"T", "dtype", "nbytes", "ndim", "shape", "size"}
CONVERSIONS = {"__bool__", "__float__", "__int__", "get", "item"}  # each waits for the device
NUMBERS = (int, float, complex, np.generic)  # bool is an int

used = set()  # names, as they are in CuPy's documentation


class DeviceArray(NDArrayOperatorsMixin):
    """An array on the device."""

    __array_priority__ = 100

    def __init__(self, array):
        self._array = array

    def __array__(self, *arguments, **keywords):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use get() instead.")

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        if method != "__call__":
            raise TypeError(f"CuPy does not have {ufunc.__name__}.{method}.")
        _allow(ufunc.__name__, UFUNCS, keywords, KEYWORDS_OF_UFUNCS)
        return _call(ufunc, inputs, keywords)

    def __array_function__(self, function, kinds, arguments, keywords):
        module = function.__module__.removeprefix("numpy").lstrip(".")
        name = f"{module}.{function.__name__}".lstrip(".")
        _allow(name, FUNCTIONS, keywords, FUNCTIONS.get(name))
        if name in TRANSFERS:
            (source,) = arguments
            source = source._array if isinstance(source, DeviceArray) else np.array(source)
            return DeviceArray(function(source, **keywords))
        return _call(function, arguments, keywords)

    def __getattr__(self, name):
        if name in ATTRIBUTES:
            value = getattr(self._array, name)
            return DeviceArray(value) if name == "T" else value
        if name not in METHODS:
            raise AttributeError(f"CuPy's arrays do not have {name}, or the double does not know it.")

        def method(*arguments, **keywords):
            _allow(f"ndarray.{name}", {f"ndarray.{known}" for known in METHODS}, keywords, METHODS[name])
            return _call(getattr(self._array, name), arguments, keywords)

        return method

    def __setattr__(self, name, value):
        if name != "_array":
            raise AttributeError(f"The double does not set {name}.")
        super().__setattr__(name, value)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        used.add("ndarray.__getitem__")
        found = self._array[tuple(_unwrap(part, slice, type(None), type(...)) for part in index)]
        if not isinstance(found, np.ndarray):  # a view of one number, as CuPy gives
            found = self._array[(*(_unwrap(part) for part in index), ...)]
        return DeviceArray(found)

    def __setitem__(self, index, value):
        index = index if isinstance(index, tuple) else (index,)
        used.add("ndarray.__setitem__")
        self._array[tuple(_unwrap(part, slice, type(None), type(...)) for part in index)] = _unwrap(value)

    def __len__(self):
        return len(self._array)

    def __copy__(self):
        return DeviceArray(self._array.copy())

    def __deepcopy__(self, memo):
        return DeviceArray(self._array.copy())

    def get(self):
        used.add("ndarray.get")
        return self._array.copy()

    def item(self):
        return self.get().item()

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __repr__(self):
        return f"on the device: {self._array!r}"


class ElementwiseKernel:
    """CuPy's, for operations that are assignments: NumPy computes them line by line in the arrays' dtype."""

    def __init__(self, inputs, outputs, operation, name):
        self.inputs, self.outputs = (
            [part.split()[1] for part in names.split(",")] for names in (inputs, outputs)
        )
        self.lines = [line.strip().removeprefix("T ") for line in operation.split(";") if line.strip()]

    def __call__(self, *arguments):
        used.add("ElementwiseKernel")
        arrays = [_unwrap(argument) for argument in arguments]
        names = dict(zip(self.inputs, arrays, strict=False)) | {"tanh": np.tanh, "T": arrays[0].dtype.type}
        outputs = dict(zip(self.outputs, arrays[len(self.inputs) :], strict=True))
        for line in self.lines:
            name, expression = line.split(" = ")
            names[name] = eval(expression, {"__builtins__": {}}, names)
            assert names[name].dtype == arrays[0].dtype, line
        for name, array in outputs.items():
            array[...] = names[name]


def _allow(name, known, keywords, allowed):
    if name not in known:
        raise TypeError(f"CuPy does not have {name}, or the double does not know it.")
    if strange := set(keywords) - allowed:
        raise TypeError(f"CuPy's {name} does not take {sorted(strange)}, or the double does not know it.")
    used.add(name)


def _unwrap(value, *others):
    """NumPy's array in place of a device's; TypeError for arrays of the host and for lists of numbers."""
    if isinstance(value, DeviceArray):
        return value._array
    if isinstance(value, (np.dtype, type, str, *NUMBERS, *others)) or value is None:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, DeviceArray) for item in value):
        return [item._array for item in value]  # to join
    if isinstance(value, tuple) and not any(isinstance(item, DeviceArray) for item in value):
        return tuple(_unwrap(item) for item in value)  # a shape, axes, widths
    raise TypeError(f"Unsupported type {type(value)}: CuPy converts nothing to the device on its own.")


def _call(function, arguments, keywords):
    """function(…) on NumPy's arrays; arrays that it returns are on the device, also those without axes."""
    out = keywords.pop("out", None)
    out = out[0] if isinstance(out, tuple) else out
    keywords = {name: _unwrap(value) for name, value in keywords.items()}
    if out is not None:
        keywords["out"] = _unwrap(out)
    result = function(*(_unwrap(value) for value in arguments), **keywords)
    if out is not None:
        return out
    return DeviceArray(np.asarray(result)) if isinstance(result, np.ndarray | np.generic) else result


def as_cupy():
    """A module that has what the pipeline uses of CuPy itself."""
    module = types.ModuleType("cupy")
    properties = types.SimpleNamespace(getDeviceProperties=lambda number: {"name": b"device double"})
    module.__version__, module.cuda = "14.2.0", types.SimpleNamespace(runtime=properties)
    module.empty = lambda shape: DeviceArray(np.empty(shape))
    module.ones = lambda shape: DeviceArray(np.ones(shape))
    return module


def compare_with_cupy():
    """Print what the lists above have and the installed CuPy lacks, and return how much it is."""
    cupy = importlib.import_module("cupy")
    missing = [name for name in UFUNCS if not hasattr(cupy, name)]
    missing += [f"ndarray.{name}" for name in {*METHODS, *ATTRIBUTES, *CONVERSIONS} - set(dir(cupy.ndarray))]
    for name, keywords in FUNCTIONS.items():
        module, _, function = name.rpartition(".")
        found = getattr(importlib.import_module(f"cupy.{module}".rstrip(".")), function, None)
        if found is None:
            missing.append(name)
            continue
        parameters = inspect.signature(found).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            missing += [f"{name}({keyword}=…)" for keyword in keywords - {*parameters}]
    for name, keywords in METHODS.items():  # compiled: the first line of the docstring has the signature
        signature = (getattr(cupy.ndarray, name).__doc__ or "").partition("\n")[0]
        missing += [f"ndarray.{name}({keyword}=…)" for keyword in keywords if f"{keyword}=" not in signature]
    print(f"CuPy {cupy.__version__} lacks: {', '.join(missing) or 'nothing'}")
    return len(missing)


if __name__ == "__main__":
    raise SystemExit(compare_with_cupy())
