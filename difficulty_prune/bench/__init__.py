"""How fast the kernels and the sampler are on this machine, side by side with what they replace."""
