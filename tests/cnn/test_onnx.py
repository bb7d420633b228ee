"""The library under the backend tests of ONNX, which specify what its operators compute.

`onnx_adapter` says which layer stands for which operator; `onnx_cases` lists every case of these operators.
Source: the package `onnx`, https://onnx.ai/onnx/repo-docs/OnnxBackendTest.html.
"""

import re
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests
from onnx_adapter import GLUE, OPERATORS, run
from onnx_cases import JUDGED, LEFT_OUT

RTOL = 1e-5  # ONNX asks for 1e-3
LOOSE = {"test_averagepool_2d_ceil_last_window_starts_on_pad"}  # its expected values have four decimals

# For each operator, the number of cases that are judged, and of those left out.
COUNTS = {
    "AveragePool": (17, 10),
    "BatchNormalization": (9, 0),
    "Conv": (18, 15),
    "Dropout": (12, 0),
    "Elu": (4, 3),
    "Flatten": (11, 0),
    "Gelu": (4, 4),
    "Gemm": (14, 0),
    "GlobalAveragePool": (2, 0),
    "GlobalMaxPool": (2, 0),
    "LayerNormalization": (19, 38),
    "LeakyRelu": (5, 3),
    "LogSoftmax": (10, 14),
    "MatMul": (2, 6),
    "MaxPool": (15, 13),
    "Relu": (3, 1),
    "Sigmoid": (3, 2),
    "Softmax": (10, 15),
    "SoftmaxCrossEntropyLoss": (34, 34),
    "Swish": (1, 1),
    "Tanh": (3, 2),
}


@dataclass
class Case:
    """One of ONNX's tests: a model, usually of one operator, with its inputs and outputs."""

    operator: str  # under test
    model: ModelProto
    data_sets: list
    rtol: float
    atol: float

    @property
    def operators(self):
        return [node.op_type for node in self.model.graph.node]

    @property
    def inputs(self):
        return self.data_sets[0][0]


@cache
def collect():
    """name -> case, for all cases of the operators for which there is a layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX now generates the cases of all operators
        generated = {case.name: case for case in collect_testcases()}
    cases = {}
    for name, case in generated.items():
        operator = generated[without_suffix(name)].model.graph.node[0].op_type
        if operator in OPERATORS:
            cases[name] = Case(operator, case.model, case.data_sets, case.rtol, case.atol)
    for kind in ("pytorch-converted", "pytorch-operator", "simple"):
        for case in load_model_tests(kind=kind):
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            known = [node.op_type for node in model.graph.node if node.op_type in OPERATORS]
            if known:
                assert case.name not in cases
                data_sets = [(read(d, "input"), read(d, "output")) for d in folder.glob("test_data_set_*")]
                cases[case.name] = Case(known[0], model, data_sets, case.rtol, case.atol)
    return cases


def without_suffix(name):
    """The case from which ONNX derived this one, by replacing the operator with its definition."""
    return re.sub(r"_expanded(_ver\d+)?$", "", name)


def read(folder, kind):
    return [numpy_helper.to_array(onnx.load_tensor(path)) for path in sorted(folder.glob(f"{kind}_*.pb"))]


@pytest.mark.parametrize("name", [name for names in JUDGED.values() for name in names])
def test_the_library_computes_what_onnx_expects(name):
    case = collect()[name]
    rtol = case.rtol if name in LOOSE else min(case.rtol, RTOL)
    assert case.data_sets
    for inputs, expected in case.data_sets:
        for y, wanted in zip(run(case.model, inputs), expected, strict=True):
            assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype)
            np.testing.assert_allclose(y, wanted, rtol=rtol, atol=case.atol)


def has_spatial_axes(number):
    """Whether the operator's input has this many axes after image and channel."""
    spatial = {"AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
    return lambda name, case: case.operators[0] in spatial and case.inputs[0].ndim == 2 + number


def is_function_body(name, case):
    """Whether other operators replace the one under test, whose own case is judged."""
    return case.operator not in case.operators and without_suffix(name) in JUDGED[case.operator]


# What must be true of all cases left out for a reason, and of no case that is judged.
CHECKS = {
    "one spatial axis": has_spatial_axes(1),
    "three spatial axes": has_spatial_axes(3),
    "not float32": lambda name, case: case.inputs[0].dtype != np.float32,
    "not two matrices": lambda name, case: (
        case.operators == ["MatMul"] and {x.ndim for x in case.inputs} != {2}
    ),
    "a function body": is_function_body,
    "other operators take part": lambda name, case: (
        without_suffix(name) == name and not {*case.operators} <= OPERATORS.keys() | GLUE.keys()
    ),
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_each_case_is_left_out_for_a_reason_that_is_true(reason):
    check, cases = CHECKS[reason], collect()
    assert [name for name in LEFT_OUT[reason] if not check(name, cases[name])] == []
    assert [name for names in JUDGED.values() for name in names if check(name, cases[name])] == []


def test_every_case_is_either_judged_or_left_out():
    listed = Counter(name for part in (JUDGED, LEFT_OUT) for names in part.values() for name in names)
    assert [name for name, times in listed.items() if times > 1] == []
    assert listed.keys() - collect().keys() == set(), "unknown to this version of ONNX"
    assert collect().keys() - listed.keys() == set(), "neither judged nor left out"
    for operator, names in JUDGED.items():
        assert {collect()[name].operator for name in names} == {operator}


def test_so_many_cases_are_judged(record_property):
    left_out = {name for names in LEFT_OUT.values() for name in names}
    counts = {
        operator: (
            sum(case.operator == operator and name not in left_out for name, case in collect().items()),
            sum(case.operator == operator and name in left_out for name, case in collect().items()),
        )
        for operator in OPERATORS
    }
    judged, others = (sum(column) for column in zip(*counts.values(), strict=True))
    record_property("judged", judged)
    record_property("left_out", others)
    print(f"{judged} of ONNX's cases are judged, {others} are left out: {counts}")
    assert counts == COUNTS
    assert (judged, others) == (198, 161)
