"""Let autograd run on tensors of a CUDA device that does not exist.

The backward pass asks the runtime for the current device and its stream. A CUDA build of torch
passes that on to the driver, and stops if there is none. Inside `simulated_runtime`, other answers
take their place. They are compiled once, by the C++ compiler of this machine and with the headers
that torch installs. In a CPU build of torch (2.13 was tried), they are enough for a forward pass,
but autograd finds no accelerator in the backward pass.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch

__all__ = ["simulated_runtime", "why_unavailable"]

FOLDER = Path(__file__).parents[2] / ".pytest_cache" / "device_guard"
"""The directory of the compiled library."""

SOURCE = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cstring>

using c10::Device;
using c10::DeviceType;
using c10::Stream;

// One device with one stream; torch's own stand-in has no device at all.
struct SingleDevice : c10::impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  static Stream stream() { return Stream(Stream::DEFAULT, Device(DeviceType::CUDA, 0)); }
  Device exchangeDevice(Device) const override { return Device(DeviceType::CUDA, 0); }
  Device getDevice() const override { return Device(DeviceType::CUDA, 0); }
  Stream getStream(Device) const noexcept override { return stream(); }
  Stream exchangeStream(Stream) const noexcept override { return stream(); }
};

static bool no(void*, c10::DeviceIndex) { return false; }

static void* table[256];
static void** original = nullptr;
static const c10::impl::DeviceGuardImplInterface* original_guard = nullptr;

template <class Method>
static void replace(Method method, void* function) {
  size_t offset;  // a pointer to a virtual method holds its place in the table, plus one
  std::memcpy(&offset, &method, sizeof offset);
  table[2 + (offset - 1) / sizeof(void*)] = function;
}

static void**& methods_of_hooks() {
  auto& hooks = const_cast<at::CUDAHooksInterface&>(at::detail::getCUDAHooks());
  return *reinterpret_cast<void***>(&hooks);
}

static auto& registered_guard() {
  return c10::impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)];
}

extern "C" void enter() {
  static SingleDevice guard;
  original_guard = registered_guard().load();
  registered_guard().store(&guard);
  original = methods_of_hooks();
  // two words of type information come before the methods
  std::memcpy(table, original - 2, 256 * sizeof(void*));
  replace(&at::CUDAHooksInterface::hasPrimaryContext, reinterpret_cast<void*>(&no));
  methods_of_hooks() = table + 2;
}

extern "C" void leave() {
  methods_of_hooks() = original;
  registered_guard().store(original_guard);
}
"""


def why_unavailable() -> str | None:
    """Return why `simulated_runtime` cannot work here; `None` if it can."""
    if not torch.backends.cuda.is_built():
        return "the backward pass on a simulated CUDA device needs a CUDA build of torch"
    if shutil.which("g++") or _library().exists():
        return None
    return "a simulated CUDA device needs g++, which is not installed"


@contextlib.contextmanager
def simulated_runtime() -> Iterator[None]:
    """Answer autograd's questions about CUDA devices inside the block."""
    library = _loaded()
    library.enter()
    try:
        yield
    finally:
        library.leave()


@functools.cache
def _loaded() -> ctypes.CDLL:
    if not _library().exists():
        _compile(_library())
    return ctypes.CDLL(str(_library()))


def _library() -> Path:
    digest = hashlib.sha256(f"{torch.__version__} {SOURCE}".encode()).hexdigest()[:16]
    return FOLDER / f"guard_{digest}.so"


def _compile(library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    unfinished = library.with_suffix(f".{os.getpid()}.so")  # tests run in several processes
    source, torch_folder = unfinished.with_suffix(".cpp"), Path(torch.__file__).parent
    source.write_text(SOURCE)
    command = ["g++", "-std=c++20", "-shared", "-fPIC", "-O0", "-w", f"-I{torch_folder}/include"]
    libraries = [f"-L{torch_folder}/lib", "-lc10", "-ltorch_cpu"]
    subprocess.run([*command, "-o", unfinished, source, *libraries], check=True)
    source.unlink()
    unfinished.rename(library)
