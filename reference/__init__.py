"""Every loss and primitive in plain PyTorch, readable beside the papers. Installed as ``fer_fast.reference``."""

if __name__ != "fer_fast.reference":
    raise ImportError(
        "import this package as fer_fast.reference: under its bare name it would shadow other people's code"
    )
