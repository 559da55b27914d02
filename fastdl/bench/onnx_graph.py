"""The engine onnxruntime: an expression over the names of a case's inputs is evaluated once and leaves a graph, which a session runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

OPSET, IR_VERSION = 23, 11  # the first that has Attention


class Graph:
    """Nodes in the order in which they are asked for: every ONNX operator is a method, from names of operands to that of the result.

    Examples
    --------
    >>> from fastdl.bench.onnx_graph import Graph
    >>> graph = Graph()
    >>> graph.Relu(graph.Gemm("a", "b", transB=1))
    'Relu1'
    >>> graph.nodes[0]
    ('Gemm', ('a', 'b'), 'Gemm0', {'transB': 1})
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if not operator[0].isupper():  # no operator: what copy, pickle and inspect look for
            raise AttributeError(operator)

        def add(*operands: str, **attributes: Any) -> str:
            result = f"{operator}{len(self.nodes)}"
            self.nodes.append((operator, operands, result, attributes))
            return result

        return add

    def integers(self, *values: int) -> str:
        """A constant operand, such as the axes of a reduction."""
        name = f"integers{len(self.constants)}"
        self.constants[name] = np.array(values, np.int64)
        return name


def build(code: str, inputs: dict[str, np.ndarray]) -> tuple[Any, str]:
    """The model of an expression over `o`, a graph, and the names of `inputs`; and the name of its output."""
    from onnx import helper, numpy_helper, shape_inference

    graph = Graph()
    output = eval(code, {"o": graph, **{name: name for name in inputs}})
    nodes = [helper.make_node(operator, operands, [result], **attributes) for operator, operands, result, attributes in graph.nodes]
    given = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()]
    constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    whole = helper.make_graph(nodes, "case", given, [helper.make_empty_tensor_value_info(output)], constants)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return shape_inference.infer_shapes(model, check_type=True, strict_mode=True), output  # with the output's type


def prepare(code: str, inputs: dict[str, np.ndarray], threads: int) -> Callable[[], Any]:
    """A function without arguments that runs the model of `code` once and returns its output, an OrtValue.

    Inputs are bound here, once: a call copies nothing, and spends least of what its Python interface offers.
    """
    import onnxruntime

    model, output = build(code, inputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    binding.bind_output(output, "cpu")

    def run() -> Any:
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return run
