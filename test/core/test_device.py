"""What a GPU without memory says, in the words of CUDA and of the libraries that torch calls."""

import pytest
import torch

from llm_mde_core.device import is_lost, is_out_of_memory


@pytest.mark.parametrize(
    'error',
    [
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'),
        torch.OutOfMemoryError(''),
        RuntimeError('CUDA error: out of memory\nCUDA kernel errors might be reported later'),
        RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'),
        RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'),
        RuntimeError('cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED'),
        RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory."),
        RuntimeError('MPS backend out of memory (MPS allocated: 9 GB)'),
    ],
)
def test_out_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_lost(error)


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('CUDA error: an illegal memory access was encountered'),
        RuntimeError('cuDNN error: CUDNN_STATUS_EXECUTION_FAILED'),
        RuntimeError('mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)'),
        RuntimeError(''),
        ValueError('a file called out of memory'),
        MemoryError('out of memory'),  # of the host alone, which the CPU would need, too
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ('error', 'lost'),
    [
        (RuntimeError('CUDA error: an illegal memory access was encountered'), True),
        (torch.AcceleratorError('CUDA error: unspecified launch failure'), True),
        (RuntimeError('HIP error: device-side assert triggered'), True),
        (RuntimeError('mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)'), False),
        (ValueError('CUDA error: of a file'), False),
    ],
)
def test_a_lost_gpu_is_told_from_what_a_next_frame_survives(error: Exception, lost: bool) -> None:
    assert is_lost(error) is lost
