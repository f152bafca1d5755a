"""Detection in whatever a user points at: images, folders, addresses, videos and cameras."""
