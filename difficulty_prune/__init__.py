"""Score how hard each training example is, inside the training step, and train on fewer of them."""

__version__ = "0.1.0"
