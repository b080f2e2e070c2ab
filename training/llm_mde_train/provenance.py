"""What made a result: the code, the weights and the frames."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from llm_mde_train.samples import Sample

LIBRARIES = ('torch', 'transformers', 'peft')


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    return {name: version(name) for name in LIBRARIES}


def sha256_of_samples(samples: list[Sample]) -> str:
    """Return the digest of colours and depths in their order, hexadecimal."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.rgb.tobytes())
        digest.update(sample.depth_m.tobytes())
    return digest.hexdigest()
