"""Kill this process in the middle of a save; Python imports a module with this name at start.

Environment variables:
    SABOTAGE_MATCH: Part of the paths whose accesses are counted.
    SABOTAGE_KILL_AT: Number of the access at which the process is killed.
    SABOTAGE_RANK: The only rank that is killed.
    SABOTAGE_LOG: A file to record the accesses in.
"""

import os
import signal
import sys

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}


def install() -> None:
    """Count the accesses of this process to the paths."""
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
