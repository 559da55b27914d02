"""Layer: the base of all layers and models. A `fastdl.nn.Module` with Keras's protocol: `build`, `call`, weights in Keras's shapes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn
from fastdl.errors import ShapeError, ValueError_

from .. import constraints, initializers, regularizers
from .._serial import Configurable
from .._tensor import KerasTensor, as_tensor, infer, leaves, map_tree

_counts: dict[str, int] = {}


def clear_session() -> None:
    """Automatic names start anew ("dense", "dense_1" ...)."""
    _counts.clear()


def unique_name(kind: str) -> str:
    base = re.sub(r"(?<=[a-z0-9])([A-Z])|(?<=[A-Z])([A-Z])(?=[a-z])", r"_\1\2", kind).lower()
    n = _counts.get(base, 0)
    _counts[base] = n + 1
    return f"{base}_{n}" if n else base


class Variable:
    """One weight of a layer, seen in Keras's shape.

    Attributes
    ----------
    name, path : str
    tensor : Tensor
        Where the numbers are, in the layout that fastdl's kernels take.
    shape : tuple of int
        Keras's.
    trainable : bool
    """

    def __init__(self, name: str, tensor: Any, axes: tuple[int, ...] | None, trainable: bool, regularizer: Any, constraint: Any) -> None:
        self.name, self.path, self.tensor, self.axes = name, name, tensor, axes
        self.trainable, self.regularizer, self.constraint = trainable, regularizer, constraint

    @property
    def value(self) -> Any:
        """The weight in Keras's shape: a view."""
        return self.tensor if self.axes is None else fd.permute_dims(self.tensor, self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape) if self.axes is None else tuple(self.tensor.shape[a] for a in self.axes)

    @property
    def dtype(self) -> str:
        return str(self.tensor.dtype)

    def numpy(self) -> np.ndarray:
        """A copy."""
        return np.array(self.value.detach().cpu().numpy(), order="C")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype)

    def assign(self, value: Any) -> None:
        """Copy an array of Keras's shape into the weight.

        Raises
        ------
        ShapeError
            When the shapes differ.
        """
        array = value.detach() if isinstance(value, fd.Tensor) else fd.asarray(np.array(value, self.dtype))
        if tuple(array.shape) != self.shape:
            raise ShapeError(f"{self.path}: got an array of shape {tuple(array.shape)}; the weight has shape {self.shape}")
        with fd.no_grad():
            self.tensor.copy_(array if self.axes is None else fd.permute_dims(array, tuple(np.argsort(self.axes).tolist())))

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}>"


class Layer(Configurable, nn.Module):
    """Base of layers: define `call(self, inputs)` (and `training=None` where the mode matters), and `build(self, input_shape)` for weights.

    Parameters
    ----------
    name : str, optional
    trainable : bool
    dtype : str, optional
        Accepted for Keras's sake; layers compute in float32.
    activity_regularizer : optional
        Penalty on the output, divided by the batch size.
    input_shape, input_dim, batch_input_shape : optional
        For the first layer of a `Sequential`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")
    ...     def call(self, inputs):
    ...         return inputs * self.factor
    >>> layer = Scale()
    >>> layer(np.ones((2, 3))).shape, [w.shape for w in layer.weights]
    ((2, 3), [(3,)])
    """

    built: bool = False

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        activity_regularizer: Any = None,
        input_shape: Any = None,
        input_dim: int | None = None,
        batch_input_shape: Any = None,
    ) -> None:
        nn.Module.__init__(self)
        own = self.__dict__
        own["training"] = False  # as in Keras, a call outside fit is not training
        own["_variables"] = []
        own["_added_losses"] = []
        own["_nodes"] = []
        own["_trainable"] = bool(trainable)
        self.name = name or unique_name(type(self).__name__)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        if input_dim is not None:
            input_shape = (input_dim,)
        if batch_input_shape is not None:
            input_shape = tuple(batch_input_shape)[1:]
        own["_given_shape"] = None if input_shape is None else tuple(input_shape)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parameters = inspect.signature(cls.call).parameters
        cls._takes_training = "training" in parameters

    _takes_training = False

    # ---- calling -------------------------------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define call()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if leaves((args, kwargs), KerasTensor):
            training = kwargs.pop("training", None)
            node = infer(self, args, kwargs)
            if training is not None and self._takes_training:
                node.kwargs["training"] = training
            self._nodes.append(node)
            return node.outputs
        args, kwargs = map_tree(as_tensor, args), map_tree(as_tensor, kwargs)
        training = kwargs.pop("training", None)
        if not self.built:
            self._build(args)
        if training is None or bool(training) == self.training:
            return nn.Module.__call__(self, *args, **kwargs)
        before = {module: module.training for module in self.modules()}
        self.train(bool(training))
        try:
            return nn.Module.__call__(self, *args, **kwargs)
        finally:
            for module, mode in before.items():
                module.__dict__["training"] = mode
            fd._C.mode_changed()

    def _build(self, args: tuple[Any, ...]) -> None:
        shapes = map_tree(lambda t: tuple(t.shape) if isinstance(t, fd.Tensor) else None, args)
        if shapes:
            self.build(shapes[0])
        self.built = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._takes_training:
            kwargs.setdefault("training", self.training)
        result = self.call(*args, **kwargs)
        if self.activity_regularizer is not None:
            for y in leaves(result, fd.Tensor):
                self.add_loss(self.activity_regularizer(y) / y.shape[0])
        return result

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape of the output for inputs of this shape (None: not known)."""
        single = isinstance(input_shape, tuple)
        given = KerasTensor(input_shape) if single else [KerasTensor(tuple(s)) for s in input_shape]
        return map_tree(lambda t: t.shape, infer(self, (given,), {}).outputs)

    # ---- weights -------------------------------------------------------------------------------------------------------------

    def add_weight(
        self,
        shape: Any = (),
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
        axes: tuple[int, ...] | None = None,
    ) -> Any:
        """Make a weight of Keras's `shape`; returns the tensor that holds it.

        `axes` says which axes of the tensor give Keras's shape, where fastdl's kernels want another order.
        """
        name = name or f"weight{len(self._variables)}"
        if initializer is None:
            initializer = "zeros" if "bias" in name else "glorot_uniform"
        value = initializers.get(initializer)(tuple(shape))
        value = fd.asarray(value).astype(dtype or fd.float32)
        if axes is not None:
            value = fd.permute_dims(value, tuple(np.argsort(axes).tolist())).contiguous()
        key = f"weight_{len(self._variables)}"
        if trainable:
            tensor: Any = nn.Parameter(value, requires_grad=self._trainable)
            self.register_parameter(key, tensor)
        else:
            tensor = value.clone()
            self.register_buffer(key, tensor)
        variable = Variable(name, tensor, axes, trainable, regularizers.get(regularizer), constraints.get(constraint))
        variable.path = f"{self.name}/{name}"
        self._variables.append(variable)
        return tensor

    def __getattr__(self, name: str) -> Any:
        for variable in self.__dict__.get("_variables", ()):
            if variable.name == name:
                return variable.value
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (list, tuple)) and value and all(isinstance(v, Layer) for v in value):
            for k, layer in enumerate(value):  # Keras finds layers in lists
                nn.Module.__setattr__(self, f"{name}_{k}", layer)
        nn.Module.__setattr__(self, name, value)

    def _sublayers(self) -> list[Layer]:
        """Direct children that are layers."""
        return [child for child in self.children() if isinstance(child, Layer)]

    def _all_variables(self, seen: set[int] | None = None) -> list[Variable]:
        """Variables of this layer and all below it, each once."""
        seen = set() if seen is None else seen
        found = []
        for variable in self._variables:
            if id(variable.tensor) not in seen:
                seen.add(id(variable.tensor))
                found.append(variable)
        for layer in self._sublayers():
            found += layer._all_variables(seen)
        return found

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; setting it sets it for all layers inside. Compile the model after a change."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.__dict__["_trainable"] = bool(value)
        for variable in self._variables:
            if variable.trainable:
                variable.tensor.requires_grad_(bool(value))
        for layer in self._sublayers():
            layer.trainable = value
        fd._C.structure_changed()

    @property
    def trainable_weights(self) -> list[Variable]:
        return [v for v in self._all_variables() if v.trainable and v.tensor.requires_grad]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        return [v for v in self._all_variables() if not (v.trainable and v.tensor.requires_grad)]

    @property
    def weights(self) -> list[Variable]:
        """All weights, those that are trained first within each layer."""
        return self._all_variables()

    variables = weights
    trainable_variables = trainable_weights
    non_trainable_variables = non_trainable_weights

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in Keras's shapes."""
        return [variable.numpy() for variable in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Copy arrays in the order and shapes of :meth:`get_weights`.

        Raises
        ------
        ValueError
            When number or shapes differ; nothing is changed then.
        """
        variables = self.weights
        if len(weights) != len(variables):
            raise ValueError_(f"{self.name}.set_weights: got {len(weights)} arrays; the layer has {len(variables)} weights")
        for variable, array in zip(variables, weights, strict=True):
            if tuple(np.shape(array)) != variable.shape:
                raise ShapeError(f"{variable.path}: got an array of shape {np.shape(array)}; the weight has shape {variable.shape}")
        for variable, array in zip(variables, weights, strict=True):
            variable.assign(array)

    def count_params(self) -> int:
        """Number of numbers in all weights."""
        return sum(v.tensor.size for v in self.weights)

    # ---- losses --------------------------------------------------------------------------------------------------------------

    def add_loss(self, loss: Any) -> None:
        """Add a tensor to the loss of the step that runs; for use in `call`."""
        self._added_losses.append(loss)

    def take_losses(self) -> list[Any]:
        """The tensors that :meth:`add_loss` got since the last call, here and below."""
        taken = []
        for module in self.modules():
            added = module.__dict__.get("_added_losses")
            if added:
                taken += added
                added.clear()
        return taken

    def regularization_losses(self) -> list[Any]:
        """Penalties on weights, as tensors."""
        return [v.regularizer(v.value) for v in self.trainable_weights if v.regularizer is not None]

    @property
    def losses(self) -> list[Any]:
        """Penalties on weights, and what `add_loss` got in the last call."""
        return self.regularization_losses() + [t for m in self.modules() for t in m.__dict__.get("_added_losses", ())]

    # ---- configuration -------------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal layer (without its weights)."""
        config = super().get_config()
        init = type(self).__init__
        parameters = inspect.signature(getattr(init, "__wrapped__", init)).parameters
        if "name" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            config["name"] = self.name
            if not self._trainable:
                config["trainable"] = False
        return config

    # The history of the functional API: what the last symbolic call took and gave.

    def _last(self, what: str) -> Any:
        if not self._nodes:
            raise AttributeError(f"{self.name}: the layer has not been called on an Input, so it has no {what}")
        node = self._nodes[-1]
        return node.outputs if what == "output" else node.inputs[0] if len(node.inputs) == 1 else node.inputs

    @property
    def input(self) -> Any:
        """What the layer was called on."""
        return self._last("input")

    @property
    def output(self) -> Any:
        """What the layer gave for it."""
        return self._last("output")


def serialize(layer: Layer) -> dict[str, Any]:
    """A layer's class and configuration, as JSON can hold them."""
    from .._serial import pack

    return pack(layer)


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """The layer of what :func:`serialize` returned."""
    from .._serial import unpack

    return unpack(config, custom_objects)
