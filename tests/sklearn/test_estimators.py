"""The estimators inside scikit-learn's tools, and the promises around their state."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris, make_regression
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastdl as fd
from fastdl import nn, optim
from fastdl.sklearn import Classifier, Regressor, mlp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X).astype(np.float32)
FAST = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "max_iter": 40, "random_state": 0}


def _numbers(outputs: int = 1) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_regression(120, 5, n_targets=outputs, random_state=0)
    return x.astype(np.float32), y / y.std()


def _same(a, b) -> bool:
    return all(np.array_equal(p.numpy(), q.numpy()) for p, q in zip(a.module_.state_dict().values(), b.module_.state_dict().values(), strict=True))


class Net(nn.Module):
    """Named layers, batch norm and dropout."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, n_outputs)

    def forward(self, x):
        return self.head(self.body(x))


# ---- scikit-learn's tools --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda c: make_pipeline(StandardScaler(), c),
        lambda c: GridSearchCV(c, {"hidden_layer_sizes": [(4,), (16,)], "alpha": [0.0, 1e-3]}, cv=2),
        lambda c: RandomizedSearchCV(c, {"learning_rate_init": [0.01, 0.02, 0.05]}, n_iter=2, cv=2, random_state=0),
        lambda c: BaggingClassifier(c, n_estimators=3, random_state=0),
        lambda c: VotingClassifier([("net", c), ("line", LogisticRegression())], voting="soft"),
        lambda c: StackingClassifier([("net", c), ("line", LogisticRegression())], cv=2),
        lambda c: AdaBoostClassifier(c, n_estimators=3, random_state=0),
        lambda c: CalibratedClassifierCV(c, cv=2),
        lambda c: GridSearchCV(make_pipeline(StandardScaler(), c), {"classifier__module": [None, Net]}, cv=2),
    ],
    ids=["pipeline", "grid", "random", "bagging", "voting", "stacking", "boosting", "calibration", "grid-of-modules"],
)
def test_classifier_inside(make) -> None:
    model = make(Classifier(**FAST)).fit(X, Y)
    assert model.score(X, Y) > 0.9
    proba = model.predict_proba(X)
    assert proba.shape == (150, 3)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda r: BaggingRegressor(r, n_estimators=3, random_state=0),
        lambda r: StackingRegressor([("net", r)], RidgeCV(), cv=2),
        lambda r: AdaBoostRegressor(r, n_estimators=3, random_state=0),
        lambda r: GridSearchCV(r, {"loss": ["squared_error", "absolute_error", "huber"]}, cv=2),
    ],
    ids=["bagging", "stacking", "boosting", "grid"],
)
def test_regressor_inside(make) -> None:
    x, y = _numbers()
    assert make(Regressor(**{**FAST, "max_iter": 100})).fit(x, y).score(x, y) > 0.9


def test_threads_do_not_mix_their_random_numbers() -> None:
    model = BaggingClassifier(Classifier(dropout=0.3, batch_size=16, **FAST), n_estimators=4, random_state=0)
    alone = clone(model).fit(X, Y).predict_proba(X)
    with pytest.importorskip("joblib").parallel_backend("threading", n_jobs=4):
        np.testing.assert_array_equal(clone(model).fit(X, Y).predict_proba(X), alone)


# ---- modules and settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [Net, lambda n, k: nn.Linear(n, k), Net(4, 3)], ids=["class", "function", "instance"])
def test_module_argument(module) -> None:
    model = Classifier(module, **{**FAST, "max_iter": 80}).fit(X, Y)
    assert model.score(X, Y) > 0.9
    assert model.module_ is not module


def test_module_instance_starts_from_its_weights() -> None:
    net = Net(4, 3)
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    net.head.requires_grad_(False)
    model = clone(Classifier(net, **FAST)).fit(X, Y)
    np.testing.assert_array_equal(model.module_.head.weight.numpy(), before["head.weight"])  # frozen
    assert not np.array_equal(model.module_.body[0].weight.detach().numpy(), before["body.0.weight"])
    np.testing.assert_array_equal(net.body[0].weight.detach().numpy(), before["body.0.weight"])  # ours is a copy


@pytest.mark.parametrize("optimizer", ["sgd", "AdamW", "rmsprop", optim.Adam])
def test_optimizers(optimizer) -> None:
    more = {"optimizer_params": {"momentum": 0.9, "nesterov": True}} if optimizer == "sgd" else {}
    assert Classifier(optimizer=optimizer, max_grad_norm=1.0, **more, **FAST).fit(X, Y).score(X, Y) > 0.9


def test_alpha_is_the_l2_penalty_of_the_weights() -> None:
    """One step of gradient descent moves weights by lr * alpha * w more, and biases by nothing more."""
    one = {"optimizer": "sgd", "learning_rate_init": 0.1, "max_iter": 1, "random_state": 0, "hidden_layer_sizes": (3,)}
    plain, decayed = (Classifier(alpha=alpha, **one).fit(X, Y).module_ for alpha in (0.0, 0.5))
    start = Classifier(alpha=0.0, **{**one, "learning_rate_init": 1e-30}).fit(X, Y).module_
    w = start[0].weight.detach().numpy()
    np.testing.assert_allclose((plain[0].weight - decayed[0].weight).detach().numpy(), 0.1 * 0.5 * w, atol=1e-7)
    np.testing.assert_allclose(plain[0].bias.detach().numpy(), decayed[0].bias.detach().numpy(), atol=1e-7)


def test_same_steps_as_scikit_learn() -> None:
    """From equal weights, full-batch gradient descent follows MLPRegressor's, whose loss is half of ours."""
    from sklearn.neural_network import MLPRegressor

    x, y = _numbers()
    ours = Regressor(
        hidden_layer_sizes=(7,), activation="tanh", optimizer="sgd", learning_rate_init=0.05, alpha=0.0, max_iter=1, tol=None, random_state=0
    )
    ours.fit(x.astype(np.float64), y)
    theirs = MLPRegressor(
        hidden_layer_sizes=(7,), activation="tanh", solver="sgd", momentum=0, learning_rate_init=0.1, alpha=0, batch_size=120, random_state=0
    )
    theirs.partial_fit(x.astype(np.float64), y)
    first, last = ours.module_[0], ours.module_[2]
    theirs.coefs_ = [first.weight.detach().numpy().T.copy(), last.weight.detach().numpy().T.copy()]
    theirs.intercepts_ = [first.bias.detach().numpy().copy(), last.bias.detach().numpy().copy()]
    for _ in range(20):
        ours.partial_fit(x.astype(np.float64), y)
        theirs.partial_fit(x.astype(np.float64), y)
    np.testing.assert_allclose(ours.predict(x.astype(np.float64)), theirs.predict(x.astype(np.float64)), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.loss_curve_[1:], 2 * np.array(theirs.loss_curve_[1:]), rtol=1e-9)


def test_class_weight() -> None:
    rows = np.r_[0:50, 50:60, 100:150]  # few of class 1
    plain = Classifier(**FAST).fit(X[rows], Y[rows])
    heavy = Classifier(class_weight={1: 20.0}, **FAST).fit(X[rows], Y[rows])
    assert (heavy.predict(X) == 1).sum() > (plain.predict(X) == 1).sum()
    x64 = X[rows].astype(np.float64)
    counts = np.bincount(Y[rows])
    balanced = Classifier(class_weight="balanced", **FAST).fit(x64, Y[rows])
    explicit = Classifier(**FAST).fit(x64, Y[rows], sample_weight=1 / counts[Y[rows]])
    np.testing.assert_allclose(balanced.predict_proba(X), explicit.predict_proba(X), rtol=1e-6, atol=1e-9)


def test_several_labels_per_row() -> None:
    labels = np.stack([Y == 0, Y >= 1, X[:, 0] > 0], 1).astype(int)
    model = Classifier(**{**FAST, "max_iter": 100}).fit(X, labels)
    assert (model.predict(X) == labels).mean() > 0.95
    assert model.predict_proba(X).shape == model.decision_function(X).shape == (150, 3)


def test_several_outputs() -> None:
    x, y = _numbers(3)
    model = Regressor(**{**FAST, "max_iter": 100}).fit(x, y)
    assert model.predict(x).shape == (120, 3)
    assert model.score(x, y) > 0.9


def test_sparse_rows_are_the_same() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense, thin = Classifier(batch_size=32, **FAST).fit(X, Y), Classifier(batch_size=32, **FAST).fit(sparse.csr_array(X), Y)
    assert _same(dense, thin)
    np.testing.assert_array_equal(dense.predict_proba(X), thin.predict_proba(sparse.csc_array(X)))


def test_float32_data_stays_float32() -> None:
    assert Classifier(**FAST).fit(X, Y).module_[0].weight.dtype == fd.float32
    assert Classifier(**FAST).fit(X.astype(np.float64), Y).module_[0].weight.dtype == fd.float64
    model = Classifier(dtype="float32", **FAST).fit(X.astype(np.float64), Y)
    assert model.module_[0].weight.dtype == fd.float32
    assert model.predict_proba(X.astype(np.float64)).dtype == np.float32


# ---- the loop ------------------------------------------------------------------------------------------------------------------


def test_random_state_and_the_global_generator() -> None:
    settings = {**FAST, "batch_size": 16, "dropout": 0.3, "max_iter": 5}
    before = fd.random.default_generator.get_state()
    a, b = Classifier(**settings).fit(X, Y), Classifier(**settings).fit(X, Y)
    assert _same(a, b)
    assert a.loss_curve_ == b.loss_curve_
    assert fd.random.default_generator.get_state() == before
    assert not _same(a, Classifier(**{**settings, "random_state": 1}).fit(X, Y))


def test_early_stopping_keeps_the_best_weights() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 20)).astype(np.float32), rng.integers(0, 2, 200)  # nothing to learn
    model = Classifier(early_stopping=True, validation_fraction=0.25, n_iter_no_change=4, **{**FAST, "max_iter": 200}).fit(x, y)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_scores_) < 200
    assert model.best_validation_score_ == max(model.validation_scores_)


def test_stop_rule_and_its_warning() -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter = 2"):
        Classifier(max_iter=2).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Classifier(max_iter=2, tol=None).fit(X, Y).n_iter_ == 2
        assert Classifier(tol=1.0, n_iter_no_change=3).fit(X, Y).n_iter_ == 4


def test_warm_start_goes_on() -> None:
    settings = {**FAST, "batch_size": 32, "tol": None, "dropout": 0.2}
    whole = Classifier(**{**settings, "max_iter": 6}).fit(X, Y)
    parts = Classifier(warm_start=True, **{**settings, "max_iter": 3}).fit(X, Y).fit(X, Y)
    assert _same(whole, parts)
    assert parts.n_iter_ == 6
    assert parts.loss_curve_ == whole.loss_curve_


def test_partial_fit() -> None:
    model = Classifier(**FAST)
    with pytest.raises(fd.FastdlError, match="classes"):
        model.partial_fit(X, Y)
    for _ in range(30):
        model.partial_fit(X[:75], Y[:75], classes=[0, 1, 2]).partial_fit(X[75:], Y[75:])
    assert model.n_iter_ == 60
    assert model.score(X, Y) > 0.9
    with pytest.raises(ValueError, match=r"classes \[3\]"):
        model.partial_fit(X, np.full(150, 3))


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
@pytest.mark.parametrize("module", [None, Net, Net(4, 3)], ids=["mlp", "class", "instance"])
def test_copies_predict_and_go_on_the_same(module, how) -> None:
    model = Classifier(module, warm_start=True, dropout=0.2, **{**FAST, "max_iter": 4, "batch_size": 32}).fit(X, Y)
    twin = pickle.loads(pickle.dumps(model)) if how == "pickle" else copy.deepcopy(model)
    np.testing.assert_array_equal(model.predict_proba(X), twin.predict_proba(X))
    assert _same(model.fit(X, Y), twin.fit(X, Y))


def test_pickle_is_plain_arrays() -> None:
    state = Classifier(**FAST).fit(X, Y).__getstate__()
    assert all(type(a) is np.ndarray for a in state["_saved"]["module"].values())
    assert b"fastdl._C" not in pickle.dumps(Classifier(**FAST).fit(X, Y))


# ---- errors ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"learning_rate_init": 0}, "learning_rate_init"),
        ({"alpha": -1}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_iter": 0}, "max_iter"),
        ({"dtype": "float16"}, "dtype"),
        ({"activation": "step"}, "activation"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes"),
        ({"optimizer": "optimizer"}, "optimizer"),
        ({"loss": "huber"}, "loss"),
        ({"class_weight": "even"}, "class_weight"),
        ({"class_weight": {"a": 1}}, "class_weight"),
        ({"module": 3}, "module"),
        ({"module": nn.Linear(4, 2)}, r"module gives \(2, 2\)"),
    ],
)
def test_wrong_settings(settings, text) -> None:
    with pytest.raises(fd.FastdlError, match=text):
        Classifier(**settings).fit(X, Y)


def test_divergence_is_an_error() -> None:
    x, y = _numbers()
    with pytest.raises(ValueError, match="lower learning_rate_init"):
        Regressor(optimizer="sgd", learning_rate_init=1e20).fit(x, y)


def test_mlp() -> None:
    net = mlp(5, 2, (8, 4), "tanh", 0.5)
    assert [type(m).__name__ for m in net] == ["Linear", "Tanh", "Dropout", "Linear", "Tanh", "Dropout", "Linear"]
    assert net(fd.ones((3, 5))).shape == (3, 2)


def test_optuna_search() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial) -> float:
        rate = trial.suggest_float("learning_rate_init", 1e-4, 1e-1, log=True)
        return cross_val_score(Classifier(**{**FAST, "learning_rate_init": rate, "max_iter": 15}), X, Y, cv=2).mean()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=4)
    assert study.best_value > 0.8
