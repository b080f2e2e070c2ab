"""Data, training and evaluation of LLM-MDE (no ROS runtime needed)."""
