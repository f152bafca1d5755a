"""Images, curves and tables of a training run, for W&B, TensorBoard and files."""
