"""Which examples tell architectures apart, and which architecture made a run's scores (arXiv 2401.01867)."""
