"""The node for an hour with random faults: see __main__."""
