"""How fast the network is, beside the authors' way, Depth Anything and the machine's limit."""
