import numpy as np

from avt_jax.evaluation.clips import Keeper
from avt_jax.evaluation.mistakes import worst_mistakes


def test_the_surest_first_and_one_of_each_source():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.05, 0.95], [0.3, 0.7], [0.6, 0.4]])
    keeper = Keeper()
    keeper.add({"label": p}, {"label": np.array([0, 0, 0, 0, 1])}, np.array([0, 1, 1, 2, 3]))
    found = keeper.gather({"label": ("a", "b")}, count=5)
    # Clip 0 is right; clips 1 and 2 are of one source, of which the surer one stands for both.
    assert worst_mistakes(found.sets["label"], found.group_n) == [2, 3, 4]
