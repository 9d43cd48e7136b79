"""Kill this process in the middle of a save; Python imports this module at start if it finds it.

Environment: `SABOTAGE_MATCH`, a part of the paths that are watched; `SABOTAGE_KILL_AT`, the number
of the touch of such a path at which the process is killed; `SABOTAGE_RANK`, the only rank that is
killed; `SABOTAGE_LOG`, a file that takes every touch.
"""

import os
import signal
import sys

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}


def install() -> None:
    """Watch the paths that this process touches."""
    match, log = os.environ.get("SABOTAGE_MATCH"), os.environ.get("SABOTAGE_LOG")
    if not match or os.environ.get("SABOTAGE_RANK", "0") != os.environ.get("RANK", "0"):
        return
    kill_at = int(os.environ.get("SABOTAGE_KILL_AT", "0"))
    touches = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal touches
        if event not in EVENTS or match not in " ".join(map(str, arguments)):
            return
        touches += 1
        if log:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, f"{touches} {event} {arguments[0]}\n".encode())
            os.close(handle)
        if touches == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


install()
