"""What the tests of captured functions' traps share: the list of known faults, and calls compared with eager ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdl as fd
from fastdl import nn, optim

# Wrong numbers, or errors that do not say enough, still to be mended; a test that starts to pass must leave this list.
KNOWN = {
    "test_argument_shares_memory_only_at_replay",
    "test_argument_shares_memory_with_a_parameter",
    "test_attribute_of_an_object",
    "test_constant_written_through_numpy_between_uses",
    "test_containers_that_are_changed[<lambda>0]",
    "test_containers_that_are_changed[<lambda>1]",
    "test_containers_that_are_changed[<lambda>2]",
    "test_containers_that_are_changed[OrderedDict]",
    "test_counter_in_an_attribute",
    "test_deep_copies_and_pickles",
    "test_equal_generators_that_part_ways",
    "test_iterator_inside",
    "test_model_changed_between_calls[monkey_forward]",
    "test_numpy_generator_read_directly",
    "test_numpy_scalars_are_values",
    "test_recursion",
    "test_requires_grad_inside_on_an_argument",
    "test_shuffle_inside_is_refused",
    "test_state_of_a_generator_set_inside",
    "test_threads_with_functions_of_their_own",
    "test_values_from_python_may_be_read",
    "test_work_of_another_thread_inside",
}


@pytest.fixture(autouse=True)
def known_faults(request):
    if request.node.name in KNOWN:
        racing = request.node.name.startswith("test_threads")
        request.applymarker(pytest.mark.xfail(strict=not racing, reason="known fault of captured functions"))
    yield
    random_module = fd.random
    random_module._observe(None)  # a recording that another thread ended may be left behind


def call(f: Any, *args: Any, n: int = 4, **kwargs: Any) -> Any:
    """Calls n times: eager, recorded, replayed."""
    for _ in range(n):
        result = f(*args, **kwargs)
    return result


def same(a: Any, b: Any) -> None:
    a, b = (np.asarray(fd.asarray(v).detach()) for v in (a, b))
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def against(make: Any, calls: Any, programs: int | None = 1) -> Any:
    """The same calls of the function that make() gives, captured and eager: results and make()'s state must be equal after each."""
    eager, captured = make(), fd.compile(make())
    for args in calls:
        fd.manual_seed(sum(map(ord, repr(type(args)))))
        want = eager(*args)
        fd.manual_seed(sum(map(ord, repr(type(args)))))
        same(captured(*args), want)
    if programs is not None:
        assert captured.programs == programs, captured.reason
    return captured


X = np.arange(6, dtype=np.float32).reshape(2, 3)



def trainer(**kwargs):
    fd.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.1, **kwargs)

    def step(x):
        optimizer.zero_grad()
        loss = fd.square(model(x)).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, optimizer, step
