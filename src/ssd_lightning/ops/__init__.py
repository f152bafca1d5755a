"""Floor 0: tensors in, tensors out. Knows torch and torchvision.ops only."""
