"""The ROS 2 side of llm_mde_core: messages, outputs, the node, bags and the command line."""
