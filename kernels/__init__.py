"""Triton kernels: three tiled engines and one epilogue per loss. Installed as ``fer_fast.kernels``."""

if __name__ != "fer_fast.kernels":
    raise ImportError(
        "import this package as fer_fast.kernels: under its bare name it would shadow other people's code"
    )
