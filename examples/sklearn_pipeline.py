"""fastdl's estimators inside scikit-learn: a pipeline, a grid search, a stack with other models, and a network of one's own."""

import argparse

from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastdl import data, nn
from fastdl.sklearn import Classifier

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--optuna", type=int, default=0, metavar="N", help="also search with N trials of Optuna, if it is installed")
parser.add_argument("--tiny", action="store_true", help="a run of some seconds, for tests")
args = parser.parse_args()

x, y = data.load_digits()
x = x.reshape(len(x), -1)
if args.tiny:
    x, y = x[:300], y[:300]
x_train, x_test, y_train, y_test = train_test_split(x, y, stratify=y, random_state=0)


def conv_net(n_features: int, n_outputs: int) -> nn.Module:
    """Rows of 64 features are images of 8 x 8 again."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * 16, n_outputs),
    )  # fmt: skip


settings = {"max_iter": 10 if args.tiny else 60, "batch_size": 32, "learning_rate_init": 3e-3, "tol": None, "random_state": 0}
net = make_pipeline(StandardScaler(), Classifier(**settings))
grid = GridSearchCV(net, {"classifier__hidden_layer_sizes": [(32,), (100,)], "classifier__dropout": [0.0, 0.3]}, cv=2 if args.tiny else 3)
models = {
    "scikit-learn's MLP": make_pipeline(StandardScaler(), MLPClassifier(max_iter=settings["max_iter"], batch_size=32, learning_rate_init=3e-3, random_state=0)),
    "fastdl's MLP": net,
    "the best of a grid": grid,
    "bagging of 3": BaggingClassifier(net, n_estimators=3, random_state=0),
    "stacked with a forest": StackingClassifier(
        [("net", net), ("forest", RandomForestClassifier(50, random_state=0))], LogisticRegression(max_iter=500), cv=2
    ),
    "a convolutional network": Classifier(conv_net, early_stopping=True, **settings),
}
for name, model in models.items():
    print(f"{name:24} test accuracy {model.fit(x_train, y_train).score(x_test, y_test):.4f}", flush=True)
print("grid:", grid.best_params_)

if args.optuna:
    import optuna

    def objective(trial: "optuna.Trial") -> float:
        """Mean accuracy of cross-validation with the settings of this trial."""
        tried = {
            "hidden_layer_sizes": (trial.suggest_int("width", 16, 256, log=True),),
            "learning_rate_init": trial.suggest_float("learning_rate_init", 1e-4, 1e-1, log=True),
            "alpha": trial.suggest_float("alpha", 1e-6, 1e-2, log=True),
        }
        return cross_val_score(make_pipeline(StandardScaler(), Classifier(**{**settings, **tried})), x_train, y_train, cv=3).mean()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=args.optuna)
    print(f"optuna: {study.best_params}, cross-validated {study.best_value:.4f}")
