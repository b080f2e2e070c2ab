"""The ROS 2 side of llm_mde_core: messages, outputs, the node, bags and the command line."""

import os

# Before torch loads OpenMP: its threads would spin while they wait and take the cores from DDS and
# from everything else on the robot. On two shared cores that costs ten times the latency.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
