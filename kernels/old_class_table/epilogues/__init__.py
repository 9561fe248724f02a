"""One ``@triton.jit`` function (or two) per loss, named after it."""
