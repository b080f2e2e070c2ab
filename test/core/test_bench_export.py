"""The benchmark exports a model by itself and runs it by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_mde_core.bench.contenders import open_contender
from llm_mde_core.bench.options import BenchOptions, plan_cases


def test_an_exported_network_is_measured_like_any_other(tiny_model_dir: Path) -> None:
    pytest.importorskip('onnxscript')
    options = BenchOptions(
        models=(str(tiny_model_dir),),
        sizes=(64,),
        inputs=(64,),
        precisions=('fp32', 'bf16'),
        compile=('off', 'onnx'),
        device='cpu',
    )
    cases = plan_cases(options)
    (exported,) = [case for case in cases if case.compile == 'onnx']
    assert (exported.door, exported.precision) == ('frame', 'fp32')
    assert open_contender(exported).run()['total'] > 0
