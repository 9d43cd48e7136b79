"""Damage checkpoints: a run must resume from an earlier one or end with a clear error."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from faults.kills import digest, fresh, uninterrupted
from faults.report import Section
from support.forked_runs import train

__all__ = ["damaged_checkpoints"]

Damage = Callable[[Path], None]


def damaged_checkpoints(section: Section, folder: Path, model: Path) -> None:
    """Damage the newest checkpoint of an unfinished run in many ways and restart the run."""
    expected = uninterrupted(folder / "expected", model, 1)
    original = fresh(folder / "original", model)
    train(original, before=_stop_after_three_steps)
    newest = original / "out" / "checkpoint-3"
    if not newest.is_dir() or (original / "out" / "checkpoint-4").exists():
        raise RuntimeError("the run did not stop after its third checkpoint")
    for name, damage in _damages(newest).items():
        run = folder / f"damaged-{section.cases}"
        shutil.copytree(original, run)
        damage(run / "out" / "checkpoint-3")
        end = train(run)[0]
        _check_end(section, name, run, end, expected)


def _check_end(section: Section, name: str, run: Path, end, expected: str) -> None:
    last = end.output.strip().splitlines()[-1:] or [""]
    if end.code == 2:
        section.count("clear error")
        section.expect("Traceback" not in end.output, f"{name}: a traceback")
        section.expect(last[0].startswith("error:"), f"{name}: unclear: {last[0][:200]}")
        return
    if not section.expect(end.code == 0, f"{name}: exit code {end.code}: {last[0][:300]}"):
        section.count("failed")
        return
    resumed = "resuming at step 3" if "resuming at step 3" in end.output else "earlier one used"
    section.count("harmless" if resumed.endswith("3") else resumed)
    section.expect(digest(run / "out") == expected, f"{name}: other weights ({resumed})")


def _damages(checkpoint: Path) -> dict[str, Damage]:
    """Return every kind of damage by name."""
    names = sorted(path.name for path in checkpoint.iterdir())
    damages: dict[str, Damage] = {}
    for name in names:
        damages[f"{name} removed"] = _remove(name)
        damages[f"{name} empty"] = _truncate(name, 0.0)
        damages[f"{name} cut in half"] = _truncate(name, 0.5)
        damages[f"{name} with a flipped bit"] = _flip(name)
    for name in ("optimizer.pt", "model.safetensors", "trainer_state.json"):
        damages[f"{name} longer"] = _lengthen(name)
        damages[f"{name} is a directory"] = _make_directory(name)
        damages[f"{name} of the checkpoint before"] = _copy_from_before(name)
        damages[f"{name} is a broken link"] = _break_link(name)
    damages["empty directory"] = _empty
    damages["replaced by a file"] = _file
    damages["replaced by the one before"] = _replace_by_older
    damages["weights of another format added"] = _add("pytorch_model.bin")
    damages["an index of shards added"] = _add("model.safetensors.index.json")
    damages["manifest of the one before"] = _copy_from_before("manifest.json")
    damages["manifest is a list"] = _write("manifest.json", "[]")
    damages["manifest has other steps"] = _edit_manifest
    damages["a note added"] = _add("NOTES.txt")
    return damages


def _remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def _truncate(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        os.truncate(path, int(path.stat().st_size * share))

    return damage


def _flip(name: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        content = bytearray(path.read_bytes())
        content[random.Random(name).randrange(len(content))] ^= 0x10
        path.write_bytes(bytes(content))

    return damage


def _lengthen(name: str) -> Damage:
    return lambda folder: _write(name, (folder / name).read_bytes() + b"\0" * 64)(folder)


def _make_directory(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def _copy_from_before(name: str) -> Damage:
    return lambda folder: _copied(folder.with_name("checkpoint-2") / name, folder / name)


def _break_link(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("nowhere")

    return damage


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a checkpoint")


def _replace_by_older(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("checkpoint-2"), folder)


def _add(name: str) -> Damage:
    return _write(name, "{}")


def _write(name: str, content: str | bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def _edit_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["max_steps"] = 9
    path.write_text(json.dumps(content))


def _copied(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _stop_after_three_steps() -> None:
    """Kill the run as soon as its fourth step is saved."""
    import signal
    import sys

    def watch(event: str, arguments: tuple) -> None:
        if event == "os.mkdir" and ".saving/checkpoint-4" in str(arguments[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
