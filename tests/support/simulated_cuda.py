"""A CUDA device without a GPU: its tensors say `cuda:0`, and their numbers are on the CPU.

A whole training step runs on it, forward and backward, with the results of the CPU. On the way it

* refuses operations on tensors of two devices, as a real device does,
* counts *waits*: where Python would have to wait until the device has finished,
* counts *launches*: how many kernels PyTorch would start, views and allocations excluded,
* counts bytes that are copied to the device, and copies that pinned memory would make faster.

    with SimulatedCuda() as device:
        model.to("cuda")
        ...
    device.waits, device.launches

Launches are operations of the dispatcher, so they are an estimate of kernels. Load models before
entering it: `from_pretrained` takes other paths if there is a GPU. Memory is not simulated.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from support.device_guard import simulated_runtime
from support.simulated_attention import EMULATED, FusedAttention, attend
from support.simulated_driver import driver_answers, is_pinned
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["SimulatedCuda", "SimulatedTensor"]

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
PACKAGES = ("/unidpo_mm/", "/model_adapters/", "/unidpo_mm_eval/")

WAITS = frozenset(
    "_local_scalar_dense nonzero masked_select bincount equal _unique2 unique_dim"
    " unique_consecutive".split()
)
"""Operations whose result, or its size, the host needs."""
NO_KERNEL = frozenset(
    "_local_scalar_dense"
    " empty empty_like empty_strided new_empty new_empty_strided detach view _unsafe_view reshape t"
    " transpose permute expand slice select split split_with_sizes unsqueeze squeeze alias"
    " as_strided unbind lift_fresh _reshape_alias unfold diagonal real view_as_real"
    " view_as_complex result_type is_same_size".split()
)
"""Operations on metadata, and allocations."""
INDEXING = frozenset("index index_put index_put_ _index_put_impl_ _unsafe_index".split())
FACTORIES = {name: getattr(torch, name) for name in ("tensor", "as_tensor", "asarray")}
"""Functions that build tensors in C++, where no dispatch mode sees them."""


class SimulatedTensor(Tensor):
    """A tensor that says it is on the device; `numbers` holds its content, on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "SimulatedTensor":
        tensor = Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=CUDA,
            requires_grad=numbers.requires_grad,
        )
        tensor.numbers = numbers.detach() if numbers.requires_grad else numbers
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return SimulatedCuda.current.run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents=None):
        return f"SimulatedTensor({self.numbers!r})"

    def __getitem__(self, index):
        return super().__getitem__(_listed_as_tensors(index))

    def __setitem__(self, index, value):
        super().__setitem__(_listed_as_tensors(index), value)

    def tolist(self):
        SimulatedCuda.current.wait("tolist")
        return self.numbers.tolist()

    def numpy(self, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def new_tensor(self, data, *, dtype=None, device=None, **kwargs):
        tensor = FACTORIES["tensor"](data, dtype=dtype or self.dtype)
        on_host = device is not None and torch.device(device).type == "cpu"
        return tensor if on_host else tensor.to(CUDA)

    def untyped_storage(self):
        return self.numbers.untyped_storage()

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copied = SimulatedTensor(self.numbers.clone()).requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied, self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]


class SimulatedCuda(TorchDispatchMode):
    """A context in which the device exists.

    Attributes:
        waits: Reason and place -> how often the host waited for the device.
        launches: Operation -> number of kernels.
        bytes_to_device: Bytes that were copied to the device.
        pageable_copies: Copies to the device that did not wait, from memory that is not pinned.
    """

    current: "SimulatedCuda"
    """The device, also of tensors that outlive its context."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self.reset()

    def reset(self) -> None:
        """Start counting from zero."""
        self.waits: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.bytes_to_device = self.pageable_copies = 0

    def __enter__(self) -> "SimulatedCuda":
        SimulatedCuda.current = self
        self._stack.enter_context(simulated_runtime())
        future = torch.__future__
        swaps = future.get_swap_module_params_on_conversion()
        self._stack.callback(future.set_swap_module_params_on_conversion, swaps)
        future.set_swap_module_params_on_conversion(True)
        self._stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        replacements = [
            *driver_answers(self.wait),
            *((torch, name, self._factory(name)) for name in FACTORIES),
            (F, "scaled_dot_product_attention", self._attend),
        ]
        for owner, name, value in replacements:
            self._stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._stack.close()

    def wait(self, reason: str) -> None:
        """Count a wait of the host."""
        self.waits[f"{reason}, {_place()}"] += 1

    def launch(self, name: str, count: int = 1) -> None:
        """Count kernels."""
        self.launches[name] += count

    def wrap(self, tensor: Tensor) -> SimulatedTensor:
        """Return a tensor of the device with the numbers of a CPU tensor."""
        return SimulatedTensor(tensor)

    # ---- what the dispatcher does not see ----

    def _factory(self, name: str) -> Any:
        def build(data, *args, device=None, **kwargs):
            if isinstance(data, list | tuple):
                data = tree_map(self._read, data)
            if device is None or torch.device(device).type != "cuda":
                options = {} if device is None else {"device": device}
                return FACTORIES[name](data, *args, **options, **kwargs)
            tensor = FACTORIES[name](data, *args, **kwargs)
            return tensor.to(CUDA)

        return build

    def _read(self, item: Any) -> Any:
        """Return the number of a tensor in a list; the host waits for it."""
        if not isinstance(item, SimulatedTensor) or item.dim():
            return item
        self.wait("tensor in a list")
        return item.numbers.item()

    def _attend(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **options):
        if not isinstance(query, SimulatedTensor):
            return attend(query, key, value, attn_mask, dropout_p, is_causal, **options)
        if torch.is_autocast_enabled("cuda"):
            half = torch.get_autocast_dtype("cuda")
            query, key, value = (_in(tensor, half) for tensor in (query, key, value))
            attn_mask = None if attn_mask is None else _in(attn_mask, half)
        self._refuse_mixed("scaled_dot_product_attention", [query, key, value, attn_mask])
        options |= {"is_causal": is_causal, "dropout_p": dropout_p}
        return FusedAttention.apply(self, query, key, value, attn_mask, options)

    # ---- what the dispatcher sees ----

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation on the numbers of its tensors."""
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        target = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
        on_device = any(isinstance(tensor, SimulatedTensor) for tensor in tensors)
        if not on_device and target != "cuda":
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        numbers, options = tree_map(_numbers, (args, kwargs))
        if target is not None:
            options |= {"device": CPU}
        if name == "_to_copy":
            return self._copy(func, args, kwargs, numbers, options)
        if name == "copy_":
            self._count_copy_into(args)
        else:
            self._refuse_mixed_operands(name, args, tensors)
            self._count_waits(name, args, kwargs)
        compute, kernels = EMULATED.get(name, (func, 1))
        output = compute(*numbers, **options)
        results = [x for x in tree_flatten(output)[0] if isinstance(x, Tensor)]
        if name not in NO_KERNEL and (not results or any(x.numel() for x in results)):
            self.launch(name, kernels)
        if name == "copy_" and not isinstance(args[0], SimulatedTensor):
            return args[0]
        changed = dict(_changed_arguments(func, args, kwargs))
        return tree_map(
            lambda x: changed.get(id(x), x if not isinstance(x, Tensor) else self.wrap(x)),
            output,
        )

    def _copy(self, func, args, kwargs, numbers, options) -> Any:
        """Copy or convert a tensor; only copies within the device are kernels."""
        source, waits = args[0], not kwargs.get("non_blocking")
        was_on_device = isinstance(source, SimulatedTensor)
        target = kwargs.get("device")
        stays = target is None or torch.device(target).type == "cuda"
        if was_on_device and not stays:
            self.wait("copy to the CPU")
            return func(*numbers, **options)
        copied = func(*numbers, **options)
        if was_on_device:
            self.launch("_to_copy")
        else:
            self._count_to_device(source, waits)
            copied = copied.clone() if copied is source else copied
        return self.wrap(copied)

    def _count_copy_into(self, args: tuple[Any, ...]) -> None:
        into, source = args[:2]
        if not isinstance(into, SimulatedTensor):
            self.wait("copy to the CPU")
        elif not isinstance(source, SimulatedTensor):
            self._count_to_device(source, waits=not (len(args) > 2 and args[2]))

    def _count_to_device(self, source: Tensor, waits: bool) -> None:
        self.bytes_to_device += source.nbytes
        if waits:
            self.wait("copy to the device")
        elif not is_pinned(source):
            self.pageable_copies += 1

    def _refuse_mixed_operands(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        if name in INDEXING and isinstance(args[0], SimulatedTensor):
            for index in args[1]:  # indices may be on the CPU, but are copied then
                if isinstance(index, Tensor) and not isinstance(index, SimulatedTensor):
                    self.wait("index on the CPU")
            tensors = [args[0], *(x for x in args[2:] if isinstance(x, Tensor))]
        self._refuse_mixed(name, tensors)

    def _refuse_mixed(self, name: str, tensors: list[Any]) -> None:
        """Raise the error of a real device if tensors are on two; numbers may be on the CPU."""
        operands = [x for x in tensors if isinstance(x, Tensor)]
        devices = {x.device.type for x in operands if x.dim() or isinstance(x, SimulatedTensor)}
        if len(devices) > 1:
            shapes = ", ".join(f"{x.device}{tuple(x.shape)}" for x in operands)
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {name} of {shapes}, {_place()}"
            )

    def _count_waits(self, name: str, args: Any, kwargs: Any) -> None:
        if name in WAITS:
            self.wait({"_local_scalar_dense": "item"}.get(name, name))
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            self.wait(name)
        if name in INDEXING and not _fills_mask(name, args):
            masks = [x for x in args[1] if isinstance(x, Tensor) and x.dtype == torch.bool]
            for _ in masks:
                self.wait("mask as an index")


def _numbers(item: Any) -> Any:
    return item.numbers if isinstance(item, SimulatedTensor) else item


def _in(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.dtype == torch.float32 else tensor


def _listed_as_tensors(index: Any) -> Any:
    """Return an index with lists as tensors on the CPU, where C++ would build them unseen."""
    if isinstance(index, tuple):
        return tuple(_listed_as_tensors(item) for item in index)
    return FACTORIES["tensor"](index) if isinstance(index, list) else index


def _fills_mask(name: str, args: Any) -> bool:
    """Return whether an assignment to a mask is computed without the indices of the mask."""
    if not name.startswith(("index_put", "_index_put")):
        return False
    value = args[2]
    return value.numel() == 1 and not isinstance(value, SimulatedTensor) and not any(args[3:])


def _changed_arguments(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[int, Any]]:
    """Yield the identity of the numbers, and the tensor, of each argument that `func` changes."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            for tensor in value if isinstance(value, list | tuple) else [value]:
                if isinstance(tensor, SimulatedTensor):
                    yield id(tensor.numbers), tensor


def _place() -> str:
    """Return the line of this project, or else of a library, that asked for an operation."""
    library, frame = "", sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        for package in PACKAGES:
            if package in name:
                line = f"{name[name.rfind(package) + 1 :]}:{frame.f_lineno}"
                return line + (f" < {library}" if library else "")
        if not library and "site-packages" in name and "/torch/" not in name:
            library = f"{name.split('site-packages/')[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return library or "a test"
