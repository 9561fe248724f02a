"""``fer-fast demo``."""

import socket
import webbrowser
from pathlib import Path

from fer_fast.cli.parser import Parser
from fer_fast.errors import InputError
from fer_fast.serve.model import load
from fer_fast.train.checkpoint import check_checkpoint_free
from fer_fast.train.run import titled

PORT = 8765
# An upload that does not come on would keep the server from ending.
_SERVER = {"log_level": "warning", "server_header": False, "timeout_graceful_shutdown": 1}


def run(argv: list[str]) -> int:
    """Serve the page until Ctrl-C."""
    parser = Parser(
        prog="fer-fast demo",
        description="Serve one page on this machine alone: drop a photo or use the camera, see who shows what and what "
        "speaks for it, and enrol a class.",
    )
    parser.add_argument("--checkpoint", metavar="F", required=True, help="checkpoint.safetensors or a run's folder")
    parser.add_argument("--out", metavar="F2", help="write the model there each time a class is enrolled on the page")
    parser.add_argument("--force", action="store_true", help="replace files that are there, also the checkpoint read")
    parser.add_argument("--port", type=int, default=PORT, help=f"0 takes any that is free (default: {PORT})")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page, only say where it is")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    given = parser.parse_args(argv)
    if given.out:
        check_checkpoint_free(given.out, given.force)
    import uvicorn

    from fer_fast.serve.demo.app import Demo

    with listening(given.port) as door:
        model = load(given.checkpoint, given.device)
        demo = Demo(model, titled(model.trained.config), Path(given.out) if given.out else None)
        server = uvicorn.Server(uvicorn.Config(demo.app(), **_SERVER))
        address = f"http://127.0.0.1:{door.getsockname()[1]}/"
        print(f"the page is at {address}, for this machine alone; Ctrl-C ends it", flush=True)
        if not given.no_browser:
            webbrowser.open(address)
        server.run(sockets=[door])
    return 0


def listening(port: int) -> socket.socket:
    """A socket on the loopback.

    Raises:
        InputError: no such port, or one that cannot be had.
    """
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("127.0.0.1", port))
        door.listen()
    except (OSError, OverflowError) as error:
        door.close()
        reason = getattr(error, "strerror", None) or "allowed: 0 to 65535"
        raise InputError(f"--port {port}: {reason}") from None
    return door
