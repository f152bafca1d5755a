"""Detection in images, folders, web addresses, videos and cameras."""
