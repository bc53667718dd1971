"""What a tracker keeps of each example while a model trains."""
