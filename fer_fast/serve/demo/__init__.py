"""A page in the browser, for one person on this machine: a photo or the camera in, named faces out, classes taught."""
