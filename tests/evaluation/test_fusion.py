"""mu: what one modality alone gets right and both together get wrong."""

import itertools

import numpy as np
import pytest

from avt_jax.evaluation.classification import evaluate_variants
from avt_jax.evaluation.fusion import FusionTally, sentence

VARIANTS = {"": dict, "audio": dict, "video": dict}


def tally_of(both, sound, picture):
    tally = FusionTally()
    tally.add({"": np.array(both), "video": np.array(sound), "audio": np.array(picture)})
    return tally


def test_brute_force_over_random_clips():
    rng = np.random.default_rng(0)
    both, sound, picture = rng.random((3, 200)) < 0.5
    found = tally_of(both, sound, picture).report()
    cases = list(zip(both, sound, picture, strict=True))
    for key, holds in {
        "mu": lambda b, s, p: not b and (s or p),
        "mu_audio": lambda b, s, p: not b and s,
        "mu_video": lambda b, s, p: not b and p,
        "mu_each": lambda b, s, p: not b and s and p,
        "gained": lambda b, s, p: b and not s and not p,
        "right": lambda b, s, p: b,
        "right_audio": lambda b, s, p: s,
        "right_video": lambda b, s, p: p,
    }.items():
        assert found[key] == sum(bool(holds(*case)) for case in cases) / 200, key
    assert found["count"] == 200


def test_parts_of_several_processes_add_up():
    cases = np.array(list(itertools.product([False, True], repeat=3))).T
    whole = tally_of(*np.tile(cases, 2))
    half, other = tally_of(*cases), tally_of(*cases)
    half.combine(lambda mine: mine + other._counts.ravel())
    assert half.report() == whole.report()


@pytest.mark.parametrize(
    "both, sound, said",
    [
        ([1] * 60 + [0] * 40, [1] * 90 + [0] * 10, "Fusion hurts: the sound alone gets 90.0 %"),
        ([0, 1, 1], [1, 1, 1], "Fusion hurts (which may be chance): the sound alone"),
        ([1, 1, 1], [1, 0, 1], None),
    ],
)
def test_the_sentence_says_when_fusion_hurts(both, sound, said):
    picture = np.zeros(len(both), bool)
    text = sentence(
        "label", tally_of(np.array(both, bool), np.array(sound, bool), picture).report()
    )
    assert text.startswith("label: mu ")
    assert said in text if said else "hurts" not in text


def test_in_an_evaluation_padding_and_joint_sets_included():
    truth = {"verb": np.array([0, 1, 0, 0]), "noun": np.array([0, 0, 1, 0])}
    valid_b = np.array([True, True, True, False])
    batch = {"labels": truth, "valid": valid_b, "group": np.arange(4)}

    def right_where(shown):
        return {k: np.eye(2)[np.where(shown, label_b, 1 - label_b)] for k, label_b in truth.items()}

    shown = {"": [0, 1, 0, 0], "audio": [1, 0, 0, 1], "video": [1, 1, 0, 1]}
    variants = {k: lambda batch, k=k: batch | {"variant": k} for k in VARIANTS}
    found = evaluate_variants(
        lambda batch: right_where(np.array(shown[batch["variant"]])),
        [batch], {"verb": "ab", "noun": "cd"}, variants,
    )  # fmt: skip
    for name in ("verb", "noun", "action"):
        fusion = found[""][name]["fusion"]
        assert fusion["count"] == 3 and fusion["right"] == pytest.approx(1 / 3)
        assert fusion["mu"] == fusion["mu_each"] == pytest.approx(1 / 3)
        assert fusion["right_audio"] == pytest.approx(2 / 3)
    assert "fusion" not in found["audio"]["verb"]
