"""Detection in whatever a user points at: pictures, folders, addresses, videos and cameras."""
