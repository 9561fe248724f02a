"""Triton kernels, a folder an engine. Installed as ``fer_fast.kernels``.

Every engine's folder holds the same files: `__init__` (equations, stages, bytes and operations), `launch` (tensors in,
tensors out), a kernel a file, `settings` (its tiles), `aot` (cases for compilation ahead of time). `common` is device
code that several engines call, `host` what their launchers call.
"""

if __name__ != "fer_fast.kernels":
    raise ImportError(
        "import this package as fer_fast.kernels: under its bare name it would shadow other people's code"
    )
