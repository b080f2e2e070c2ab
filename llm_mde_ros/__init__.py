"""The ROS 2 side of llm_mde_core: messages, outputs, the node, bags and the command line."""

import os

# Before torch loads OpenMP. Its threads would spin while they wait and take the cores from DDS and
# everything else on the robot, up to ten times the latency; sleeping at once costs a quarter of
# the speed, for the network is many short loops. So they spin for some microseconds.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')  # GNU's OpenMP, which torch brings for Linux

# Before torch loads oneDNN. It and torch's side of it keep what they make for every size of image
# that they ever met, 25 kB a kernel and a thousand of them: memory would grow with every other
# lens and mode of the camera. `tiny` needs 21 for one size.
os.environ.setdefault('ONEDNN_PRIMITIVE_CACHE_CAPACITY', '128')
os.environ.setdefault('LRU_CACHE_CAPACITY', '128')
