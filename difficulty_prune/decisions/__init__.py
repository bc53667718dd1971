"""What people decided of examples, and what follows for labels and plans."""
