"""Layer 0: tensors in, tensors out. Imports only torch and torchvision.ops."""
