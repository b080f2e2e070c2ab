"""The ROS 2 side of llm_mde_core: messages, outputs, the node, bags and the command line."""

import os

# Before torch loads OpenMP. Its threads would spin while they wait and take the cores from DDS and
# everything else on the robot, up to ten times the latency; sleeping at once costs a quarter of
# the speed, for the network is many short loops. So they spin for some microseconds.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')  # GNU's OpenMP, which torch brings for Linux
