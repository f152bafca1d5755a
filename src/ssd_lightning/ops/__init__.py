"""Pure functions on tensors. Outside of this package, they need only torch, torchvision.ops and the errors."""
