"""scikit-learn's own checks of its contract: all of them, no expected failures."""

import pytest

pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastdl.sklearn import Classifier, Regressor


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([Classifier(max_iter=100), Regressor(max_iter=100)])
def test_scikit_learn_check(estimator, check):
    check(estimator)
