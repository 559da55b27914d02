"""Model (functional or subclassed) and Sequential, and their files: one safetensors file with the architecture as JSON in its header."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

import fastdl as fd
from fastdl.errors import FormatError, ShapeError, TypeError_, ValueError_
from fastdl.io import save as save_tensors
from fastdl.io.tensors import load_with_metadata

from . import optimizers
from ._serial import pack, unpack
from ._tensor import KerasTensor, Node, leaves, map_tree
from .layers.base import Layer
from .layers.core import Input, InputLayer
from .trainer import Trainer


class Model(Trainer):
    """A network: `Model(inputs, outputs)` of symbolic tensors, or a subclass that makes layers in `__init__` and uses them in `call`.

    Parameters
    ----------
    inputs, outputs : KerasTensor, or list or dict of them
    name : str, optional

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> a, b = keras.Input((4,)), keras.Input((3,))
    >>> h = keras.layers.Concatenate()([keras.layers.Dense(8, activation="relu")(a), b])
    >>> model = keras.Model([a, b], keras.layers.Dense(2)(h))
    >>> model.predict([np.ones((5, 4)), np.ones((5, 3))], verbose=0).shape
    (5, 2)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        functional = len(args) >= 2 or "outputs" in kwargs
        return object.__new__(Functional if functional and cls is Model else cls)

    def __init__(self, *args: Any, name: str | None = None, **kwargs: Any) -> None:
        if args:
            raise TypeError_("Model: need both inputs and outputs")
        super().__init__(name=name, **kwargs)

    @property
    def layers(self) -> list[Layer]:
        """The layers, in order."""
        return self._sublayers()

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by name or by place.

        Raises
        ------
        ValueError
            When there is none.
        """
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ValueError_(f"{self.name}.get_layer: index {index}; there are {len(self.layers)} layers")
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError_(f"{self.name}.get_layer: no layer {name!r}; there are {', '.join(layer.name for layer in self.layers)}")

    def summary(self, line_length: int = 66, print_fn: Any = None, **unused: Any) -> None:  # type: ignore[override]
        """Print layers, shapes and numbers of weights."""
        write = print_fn or print
        widths = (line_length // 2 - 1, line_length // 4 + 4, line_length // 4 - 5)

        def line(cells: tuple[str, str, str]) -> str:
            return " ".join(c[:w].ljust(w) for c, w in zip(cells[:2], widths, strict=False)) + " " + cells[2].rjust(widths[2])

        rule = "-" * (sum(widths) + 2)
        write(f'Model: "{self.name}"')
        write(rule)
        write(line(("Layer (type)", "Output shape", "Params")))
        write(rule)
        for layer in self.layers:
            shape = layer._nodes[-1].outputs if layer._nodes else None
            shapes = [t.shape for t in leaves(shape, KerasTensor)]
            text = str(shapes[0]) if len(shapes) == 1 else str(shapes) if shapes else "?"
            write(line((f"{layer.name} ({type(layer).__name__})", text, f"{layer.count_params():,}" if layer.built else "0 (unbuilt)")))
        write(rule)
        trained = sum(v.tensor.size for v in self.trainable_weights)
        write(f"Total params: {self.count_params():,}")
        write(f"Trainable params: {trained:,}")
        write(f"Non-trainable params: {self.count_params() - trained:,}")

    # ---- files ---------------------------------------------------------------------------------------------------------------

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Write all weights, in Keras's shapes, to a safetensors file, whatever its name ends in."""
        _may_write(filepath, overwrite)
        save_tensors(self._named_arrays(), filepath, {"keras_weights": json.dumps([v.path for v in self.weights])})

    def load_weights(self, filepath: Any) -> None:
        """Read weights of :meth:`save_weights` or :meth:`save` of an equal model.

        Raises
        ------
        FormatError
            When the file is not such a file.
        ValueError
            When number or shapes of the weights differ; nothing is changed then.
        """
        arrays, _ = load_with_metadata(filepath)
        self._set_arrays(arrays, filepath)

    def _named_arrays(self) -> dict[str, np.ndarray]:
        return {f"weights/{k}": v.numpy() for k, v in enumerate(self.weights)}

    def _set_arrays(self, arrays: dict[str, Any], filepath: Any) -> None:
        count = sum(key.startswith("weights/") for key in arrays)
        if not count and self.weights:
            raise FormatError(f"{os.fspath(filepath)}: not a file of weights of this front")
        if not all(f"weights/{k}" in arrays for k in range(count)):
            raise FormatError(f"{os.fspath(filepath)}: its weights are not numbered 0 to {count - 1}")
        self.set_weights([arrays[f"weights/{k}"].numpy() for k in range(count)])

    def save(self, filepath: Any, overwrite: bool = True) -> None:
        """Write architecture, weights, what `compile` was given, and the optimiser's state to one file; see `load_model`.

        Raises
        ------
        TypeError
            When a layer cannot say how it was made (a lambda, a function that is not registered).
        """
        if not self.built and not self.weights:
            raise ValueError_(f"{self.name}.save: the model has not been built; call it on data, or give the input's shape")
        _may_write(filepath, overwrite)
        compiled = self.get_compile_config()
        tensors: dict[str, Any] = self._named_arrays()
        if compiled and self.optimizer is not None:
            tensors.update({f"optimizer/{key}": value for key, value in self.optimizer.state().items()})
        shapes = [list(s) for s in self.__dict__.get("_input_shapes", [])]
        header = {"model": pack(self), "compile": compiled, "iterations": getattr(self.optimizer, "iterations", 0), "input_shapes": shapes}
        save_tensors(tensors, filepath, {"keras_model": json.dumps(header)})

    def to_json(self) -> str:
        """The architecture as text, for `model_from_json`."""
        return json.dumps(pack(self))

    def _build(self, args: tuple[Any, ...]) -> None:
        self.__dict__["_input_shapes"] = [tuple(t.shape) for t in leaves(args, fd.Tensor)]
        super()._build(args)


def _may_write(filepath: Any, overwrite: bool) -> None:
    if not overwrite and os.path.exists(filepath):
        raise ValueError_(f"{os.fspath(filepath)} exists, and overwrite is False")


class Functional(Model):
    """What `Model(inputs, outputs)` makes: the layers between inputs and outputs, run in order."""

    def __init__(self, inputs: Any = None, outputs: Any = None, name: str | None = None, **kwargs: Any) -> None:
        Trainer.__init__(self, name=name, **kwargs)
        own = self.__dict__
        own.pop("_arguments", None)  # the configuration is the graph
        own["_given"], own["_made"] = inputs, outputs
        own["_inputs"] = leaves(inputs, KerasTensor)
        own["_outputs"] = leaves(outputs, KerasTensor)
        if not own["_inputs"] or not own["_outputs"]:
            raise TypeError_("Model: inputs and outputs must be made of Input and layers called on it")
        own["_order"] = _sorted_nodes(own["_inputs"], own["_outputs"])
        seen: dict[int, Layer] = {}
        for node in own["_order"]:
            if id(node.layer) not in seen:
                seen[id(node.layer)] = node.layer
                self.register_module(f"layer_{len(seen) - 1}", node.layer)
        names = [layer.name for layer in seen.values()]
        if len(set(names)) != len(names):
            raise ValueError_(f"Model: layers need different names; {sorted({n for n in names if names.count(n) > 1})} occur twice")
        if isinstance(outputs, dict):
            own["output_names"] = list(outputs)
        else:
            taken: list[str] = []
            for t in own["_outputs"]:
                base = t.node.layer.name if t.node is not None else t.name
                taken.append(base if base not in taken else f"{base}_{taken.count(base)}")
            own["output_names"] = taken
        own["input_names"] = list(inputs) if isinstance(inputs, dict) else [t.name for t in own["_inputs"]]
        self.built = True

    @property
    def inputs(self) -> list[KerasTensor]:
        """The symbolic inputs."""
        return self.__dict__["_inputs"]

    @property
    def outputs(self) -> list[KerasTensor]:
        """The symbolic outputs."""
        return self.__dict__["_outputs"]

    @property
    def input(self) -> Any:
        return self.__dict__["_given"]

    @property
    def output(self) -> Any:
        return self.__dict__["_made"]

    @property
    def input_shape(self) -> Any:
        shapes = [t.shape for t in self.inputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def output_shape(self) -> Any:
        shapes = [t.shape for t in self.outputs]
        return shapes[0] if len(shapes) == 1 else shapes

    def call(self, inputs: Any) -> Any:
        given = self.__dict__["_inputs"]
        if isinstance(inputs, dict):
            missing = [name for name in self.input_names if name not in inputs]
            if missing:
                raise ValueError_(f"{self.name}: no input {missing[0]!r}; got {', '.join(map(str, inputs))}")
            values = [inputs[name] for name in self.input_names]
        else:
            values = leaves(inputs, fd.Tensor)
        if len(values) != len(given):
            raise ValueError_(f"{self.name}: got {len(values)} inputs; need {len(given)}")
        known: dict[int, Any] = {}
        for symbol, value in zip(given, values, strict=True):
            known[id(symbol)] = _fitted(self.name, symbol, value)

        def actual(value: Any) -> Any:
            return known[id(value)] if isinstance(value, KerasTensor) else value

        for node in self.__dict__["_order"]:
            result = node.layer(*map_tree(actual, node.args), **map_tree(actual, node.kwargs))
            for symbol, value in zip(leaves(node.outputs, KerasTensor), leaves(result, fd.Tensor), strict=True):
                known[id(symbol)] = value
        return map_tree(actual, self.__dict__["_made"])

    # ---- configuration -------------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Layers and who is called on what."""
        places: dict[int, list[int]] = {id(t): [-1, k] for k, t in enumerate(self.inputs)}
        order = self.__dict__["_order"]
        for n, node in enumerate(order):
            places.update({id(t): [n, k] for k, t in enumerate(leaves(node.outputs, KerasTensor))})
        layers = [layer for layer in self.layers]

        def described(tree: Any) -> Any:
            return _describe(tree, places)

        nodes = [
            {"layer": next(k for k, layer in enumerate(layers) if layer is node.layer), "args": described(node.args), "kwargs": described(node.kwargs)}
            for node in order
        ]
        inputs = [{"shape": list(t.shape), "dtype": t.dtype, "name": t.name} for t in self.inputs]
        return {
            "name": self.name,
            "layers": [pack(layer) for layer in layers],
            "graph": json.dumps({"inputs": inputs, "nodes": nodes, "given": described(self.input), "made": described(self.output)}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """A model with new weights from what :meth:`get_config` returned."""
        graph = json.loads(config["graph"])
        layers = [unpack(c, custom_objects) if isinstance(c, dict) else c for c in config["layers"]]
        inputs = [Input(batch_shape=tuple(i["shape"]), dtype=i["dtype"], name=i["name"]) for i in graph["inputs"]]
        made: list[list[KerasTensor]] = []

        def rebuilt(tree: Any) -> Any:
            return _rebuild(tree, inputs, made)

        for node in graph["nodes"]:
            result = layers[node["layer"]](*rebuilt(node["args"]), **rebuilt(node["kwargs"]))
            made.append(leaves(result, KerasTensor))
        return Functional(rebuilt(graph["given"]), rebuilt(graph["made"]), name=config["name"])


def _fitted(name: str, symbol: KerasTensor, value: Any) -> Any:
    """The value in the input's shape: (N,) fits (N, 1), and a wrong size is an error that says so."""
    if value.ndim == len(symbol.shape) - 1 and symbol.shape[-1] == 1:
        value = fd.expand_dims(value, -1)
    if value.ndim != len(symbol.shape) or any(w is not None and w != n for w, n in zip(symbol.shape[1:], value.shape[1:], strict=True)):
        raise ShapeError(f"{name}: input {symbol.name!r} has shape {tuple(value.shape)}; need {symbol.shape}")
    return value


def _sorted_nodes(inputs: list[KerasTensor], outputs: list[KerasTensor]) -> list[Node]:
    """The calls between inputs and outputs, each after those that it needs; without recursion, so that depth has no limit."""
    given = {id(t) for t in inputs}
    order: list[Node] = []
    state: dict[int, bool] = {}
    stack: list[tuple[Any, bool]] = [(t, False) for t in reversed(outputs)]
    while stack:
        item, finished = stack.pop()
        if finished:
            order.append(item)
            continue
        if id(item) in given:
            continue
        node = item.node
        if node is None:
            raise ValueError_(f"Model: output depends on {item!r}, which is not among the inputs")
        if state.setdefault(id(node), False):
            continue
        state[id(node)] = True
        stack.append((node, True))
        stack += [(t, False) for t in reversed(node.inputs)]
    return order


def _describe(tree: Any, places: dict[int, list[int]]) -> Any:
    if isinstance(tree, KerasTensor):
        return {"tensor": places[id(tree)]}
    if isinstance(tree, (tuple, list)):
        return {type(tree).__name__: [_describe(v, places) for v in tree]}
    if isinstance(tree, dict):
        return {"dict": [[k, _describe(v, places)] for k, v in tree.items()]}
    return {"value": pack(tree)}


def _rebuild(tree: dict[str, Any], inputs: list[KerasTensor], made: list[list[KerasTensor]]) -> Any:
    if "tensor" in tree:
        n, k = tree["tensor"]
        return inputs[k] if n < 0 else made[n][k]
    if "dict" in tree:
        return {k: _rebuild(v, inputs, made) for k, v in tree["dict"]}
    if "value" in tree:
        return unpack(tree["value"])
    kind = "tuple" if "tuple" in tree else "list"
    return (tuple if kind == "tuple" else list)(_rebuild(v, inputs, made) for v in tree[kind])


class Sequential(Model):
    """Layers one after the other.

    Parameters
    ----------
    layers : list of Layer, optional
        The first may be an `Input`, or have `input_shape=`; otherwise weights are made when data come.
    name : str, optional

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    >>> model.compile(optimizer="adam", loss="mse")
    >>> history = model.fit(np.ones((16, 3)), np.zeros(16), epochs=20, verbose=0)
    >>> history.history["loss"][-1] < history.history["loss"][0]
    True
    """

    def __init__(self, layers: Any = None, name: str | None = None, **kwargs: Any) -> None:
        Trainer.__init__(self, name=name, **kwargs)
        self.__dict__.pop("_arguments", None)
        self.__dict__["_stack"] = []
        self.__dict__["_symbols"] = []  # the input, and what each layer makes of it, where the shape is known
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Append a layer.

        Raises
        ------
        TypeError
            When it is not a layer.
        """
        stack, symbols = self.__dict__["_stack"], self.__dict__["_symbols"]
        if isinstance(layer, KerasTensor) or isinstance(layer, InputLayer):
            if stack or symbols:
                raise ValueError_("Sequential: an Input can only come first")
            shape = layer.shape if isinstance(layer, KerasTensor) else layer.batch_shape
            symbols.append(Input(batch_shape=shape, dtype=layer.dtype, name=layer.name))
            return
        if not isinstance(layer, Layer):
            raise TypeError_(f"Sequential.add: need a layer, not {type(layer).__name__}")
        if any(layer.name == other.name for other in stack):
            raise ValueError_(f"Sequential.add: there is a layer {layer.name!r} already; names must differ")
        if not stack and not symbols:
            first = layer._given_shape
            if first is None and isinstance(layer, Functional):
                first = layer.inputs[0].shape[1:]
            elif first is None and isinstance(layer, Sequential) and layer.__dict__["_symbols"]:
                first = layer.__dict__["_symbols"][0].shape[1:]
            if first is not None:
                symbols.append(Input(first))
        self._place(layer)
        if symbols:
            symbols.append(layer(symbols[-1]))
            self.built = True

    def _place(self, layer: Layer) -> None:
        stack = self.__dict__["_stack"]
        self.register_module(f"layer_{len(stack)}", layer)
        stack.append(layer)
        self.__dict__["output_names"] = [layer.name]
        self.__dict__.pop("_steps", None)
        fd._C.structure_changed()

    def pop(self) -> Layer:
        """Take the last layer off."""
        stack, symbols = self.__dict__["_stack"], self.__dict__["_symbols"]
        if not stack:
            raise ValueError_("Sequential.pop: there are no layers")
        layer = stack.pop()
        delattr(self, f"layer_{len(stack)}")
        if symbols:
            symbols.pop()
        self.__dict__.pop("_steps", None)
        return layer

    @property
    def layers(self) -> list[Layer]:
        return list(self.__dict__["_stack"])

    @property
    def inputs(self) -> list[KerasTensor]:
        """The symbolic input, where the shape is known."""
        return self.__dict__["_symbols"][:1]

    @property
    def outputs(self) -> list[KerasTensor]:
        """The symbolic output, where the shape is known."""
        return self.__dict__["_symbols"][-1:]

    @property
    def input(self) -> Any:
        return self.inputs[0]

    @property
    def output(self) -> Any:
        return self.outputs[0]

    @property
    def input_shape(self) -> Any:
        return self.input.shape

    @property
    def output_shape(self) -> Any:
        return self.output.shape

    def build(self, input_shape: Any = None) -> None:
        """Make the weights for inputs of this shape, batch included."""
        if not self.__dict__["_symbols"] and input_shape is not None and self.__dict__["_stack"]:
            symbols = [Input(batch_shape=(None, *tuple(input_shape)[1:]))]
            for layer in self.__dict__["_stack"]:
                symbols.append(layer(symbols[-1]))
            self.__dict__["_symbols"] = symbols
        self.built = True

    def _build(self, args: tuple[Any, ...]) -> None:
        self.build(tuple(args[0].shape))

    def call(self, x: Any) -> Any:
        symbols = self.__dict__["_symbols"]
        if symbols and isinstance(x, fd.Tensor):
            x = _fitted(self.name, symbols[0], x)
        for layer in self.__dict__["_stack"]:
            x = layer(x)
        return x

    def get_config(self) -> dict[str, Any]:
        """The layers' configurations and the input's shape."""
        symbols = self.__dict__["_symbols"]
        first = [list(symbols[0].shape), symbols[0].dtype, symbols[0].name] if symbols else None
        return {"name": self.name, "layers": [pack(layer) for layer in self.layers], "input": first}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """A model with new weights from what :meth:`get_config` returned."""
        model = cls(name=config["name"])
        if config.get("input"):
            shape, dtype, name = config["input"]
            model.add(Input(batch_shape=tuple(shape), dtype=dtype, name=name))
        for layer in config["layers"]:
            model.add(unpack(layer, custom_objects) if isinstance(layer, dict) else layer)
        return model


def model_from_json(text: str, custom_objects: dict[str, Any] | None = None) -> Any:
    """The model of `Model.to_json`, with new weights."""
    return unpack(json.loads(text), custom_objects)


def load_model(filepath: Any, custom_objects: dict[str, Any] | None = None, compile: bool = True) -> Any:
    """Read a model that `Model.save` wrote. Nothing in the file is run: classes are found among Keras's, registered ones and `custom_objects`.

    Raises
    ------
    FormatError
        When the file is not such a file.
    ValueError
        When it has a class that is not known.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from fastdl import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.keras"
    >>> model.save(path)
    >>> x = np.ones((1, 3))
    >>> bool((keras.models.load_model(path)(x) == model(x)).all())
    True
    """
    arrays, metadata = load_with_metadata(filepath)
    if "keras_model" not in metadata:
        raise FormatError(f"{os.fspath(filepath)}: not a file of Model.save (a file of weights goes with load_weights)")
    try:
        header = json.loads(metadata["keras_model"])
        packed, compiled, shapes = header["model"], header["compile"], header["input_shapes"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{os.fspath(filepath)}: its description of the model is broken: {error}") from error
    model = unpack(packed, custom_objects)
    if not model.built and shapes:
        with fd.no_grad():
            values = [fd.zeros((1, *s[1:])) for s in shapes]
            model(values[0] if len(values) == 1 else values)
    model._set_arrays(arrays, filepath)
    if compile and compiled:
        settings = {key: unpack(value, custom_objects) for key, value in compiled.items()}
        model.compile(**settings)
        state = {key.removeprefix("optimizer/"): value for key, value in arrays.items() if key.startswith("optimizer/")}
        model.__dict__["_optimizer_state"] = (state, int(header["iterations"]))
    return model


def save_model(model: Model, filepath: Any, overwrite: bool = True) -> None:
    """`model.save(filepath)`."""
    model.save(filepath, overwrite)


def clone_model(model: Model) -> Any:
    """An equal model with new weights."""
    kind = type(model)
    return kind.from_config(model.get_config())


__all__ = ["Functional", "Model", "Sequential", "clone_model", "load_model", "model_from_json", "optimizers", "save_model"]
