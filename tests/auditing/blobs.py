"""Small labelled features for the tests of the audit."""

import numpy as np


def blobs(counts, *, d=24, apart=4.0, seed=0):
    """Return features (n, d), unit normal around the centre of each class, and labels c0, c1, ..., shuffled."""
    random = np.random.default_rng(seed)
    codes = random.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = random.normal(size=(len(counts), d))
    centres *= apart / np.linalg.norm(centres, axis=1, keepdims=True)
    features = centres[codes] + random.normal(size=(len(codes), d))
    return features.astype(np.float32), [f"c{code}" for code in codes]


def flipped(labels, share, *, seed=0):
    """Return labels of which a share is another class, drawn at random, and which are."""
    random = np.random.default_rng(seed)
    classes = sorted(set(labels))
    wrong = np.zeros(len(labels), bool)
    wrong[random.choice(len(labels), round(share * len(labels)), replace=False)] = True
    others = [[name for name in classes if name != label] for label in labels]
    new = [str(random.choice(other)) if bad else own for other, bad, own in zip(others, wrong, labels, strict=True)]
    return new, wrong
