"""Times the CUDA library without Node: its table of operations driven by ctypes (native/core/backend.h), beside a copy on the
device and what PyTorch offers. Started by bench/gpu.sh.

  python3 bench/gpu_bench.py --library build-gpu/liboplus_cuda.so [--out FILE] [--quick]

With the emulator's library (liboplus_cuda_simt.so) and --quick it runs anywhere, which shows that the driving works and says
nothing about speed.
"""

import argparse
import ctypes as c
import datetime
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from torch_peers import chunked_scan, textbook_scan  # noqa: E402

ABI = 1


# ---- native/core/backend.h ----------------------------------------------------------------------------------------------


class Value(c.Structure):
    _fields_ = [("number", c.c_double), ("data", c.c_void_p), ("bytes", c.c_int64)]


class Message(c.Structure):
    _fields_ = [("text", c.c_char * 512)]


class Op(c.Structure):
    _fields_ = [
        ("name", c.c_char_p),
        ("signature", c.c_char_p),
        ("arity", c.c_int32),
        ("run", c.CFUNCTYPE(c.c_int, c.c_void_p, c.POINTER(Value), c.POINTER(Message))),
        ("cost", c.c_void_p),
    ]


class DeviceInfo(c.Structure):
    _fields_ = [("model", c.c_char * 128), ("memory", c.c_int64), ("capability", c.c_int32)]


def function(*arguments, result=c.c_int):
    return c.CFUNCTYPE(result, *arguments)


class Table(c.Structure):
    _fields_ = [
        ("abi", c.c_uint32),
        ("count", function(c.POINTER(c.c_int32), c.POINTER(Message))),
        ("describe", function(c.c_int32, c.POINTER(DeviceInfo), c.POINTER(Message))),
        ("open", function(c.c_int32, c.POINTER(c.c_void_p), c.POINTER(Message))),
        ("close", function(c.c_void_p, result=None)),
        ("allocate", function(c.c_void_p, c.c_int64, c.POINTER(c.c_void_p), c.POINTER(Message))),
        ("release", function(c.c_void_p, c.c_void_p, result=None)),
        ("upload", function(c.c_void_p, c.c_void_p, c.c_void_p, c.c_int64, c.POINTER(Message))),
        ("download", function(c.c_void_p, c.c_void_p, c.c_void_p, c.c_int64, c.POINTER(Message))),
        ("synchronize", function(c.c_void_p, c.POINTER(Message))),
        ("ops", c.POINTER(c.POINTER(Op))),
    ]


class Library:
    """The library's first device: memory, operations by name, and waiting."""

    def __init__(self, path):
        loaded = c.CDLL(path)
        loaded.oplus_backend_table.restype = c.POINTER(Table)
        found = loaded.oplus_backend_table(c.c_uint32(ABI))
        if not found:
            raise RuntimeError(f"{path} was built for another ABI than {ABI}")
        self.table = found.contents
        self.message = Message()
        self.stream = c.c_void_p()
        self.check("open", self.table.open(0, c.byref(self.stream), self.message))
        self.ops = {}
        while self.table.ops[len(self.ops)]:
            op = self.table.ops[len(self.ops)].contents
            self.ops[op.name.decode()] = op

    def check(self, what, status):
        if status:
            raise RuntimeError(f"{what}: {self.message.text.decode()}")

    def describe(self):
        info = DeviceInfo()
        self.check("describe", self.table.describe(0, info, self.message))
        return {"model": info.model.decode(), "memoryBytes": info.memory, "capability": info.capability / 10}

    def memory(self, tensor):
        """Memory on the device that holds a CPU tensor's numbers."""
        data, size = c.c_void_p(), tensor.numel() * 4
        self.check("allocate", self.table.allocate(self.stream, size, c.byref(data), self.message))
        self.check("upload", self.table.upload(self.stream, data, tensor.contiguous().data_ptr(), size, self.message))
        return Value(0, data.value, size)

    def read(self, memory, shape):
        tensor = torch.empty(shape)
        self.check("download", self.table.download(self.stream, tensor.data_ptr(), memory.data, memory.bytes, self.message))
        return tensor

    def free(self, *memories):
        self.synchronize()
        for memory in memories:
            self.table.release(self.stream, memory.data)

    def call(self, name, *arguments):
        """A function that launches an operation once. None: an optional buffer left out."""
        op = self.ops[name]
        if len(arguments) != op.arity:
            raise TypeError(f"{name}({op.signature.decode()}): found {len(arguments)} arguments")
        empty = Value(0, None, 0)
        values = (Value * op.arity)(*(x if isinstance(x, Value) else empty if x is None else Value(x, None, 0) for x in arguments))

        def launch():
            self.check(name, op.run(self.stream, values, self.message))

        return launch

    def synchronize(self):
        self.check("synchronize", self.table.synchronize(self.stream, self.message))


# ---- times --------------------------------------------------------------------------------------------------------------


def on_gpu():
    return torch.cuda.is_available()


def finish():
    if on_gpu():
        torch.cuda.synchronize()


def in_turns(contestants, rounds, seconds_each):
    """Seconds of one run of each, as many in a row as fill `seconds_each`; every contestant once a round."""
    often = {}
    for name, (run, wait) in contestants.items():
        run(), wait()
        start = time.perf_counter()
        run(), wait()
        often[name] = max(1, min(1000, round(seconds_each / max(1e-6, time.perf_counter() - start))))
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (run, wait) in contestants.items():
            start = time.perf_counter()
            for _ in range(often[name]):
                run()
            wait()
            times[name].append((time.perf_counter() - start) / often[name])
    return times


def line(name, sizes, size_bytes, times):
    ours = median(times["ours"])
    copies = [median(taken) for each, taken in times.items() if each.startswith("copy")]
    result = {
        "name": name, "sizes": sizes, "seconds": ours, "bytes": size_bytes, "bytesPerSecond": size_bytes / ours,
        "noise": abs(median(times["again"]) / ours - 1), "ofCopy": min(copies) / ours,
        "peers": {each: {"seconds": median(t), "ratio": median(t) / ours} for each, t in times.items() if each not in ("ours", "again")},
    }  # fmt: skip
    peers = ", ".join(f"{each} {1e6 * p['seconds']:.1f} µs = {p['ratio']:.2f} ×" for each, p in result["peers"].items())
    print(f"{name} {sizes}: {1e6 * ours:.1f} µs, {result['bytesPerSecond'] / 1e9:.1f} GB/s, {100 * result['ofCopy']:.0f} % of a copy\n    {peers}", flush=True)
    return result


def peers_of(B, T, H, D, grad):
    """PyTorch's ways to the same numbers, on the GPU where there is one. Those that do not fit or compile are left out."""
    device = "cuda" if on_gpu() else "cpu"
    s = torch.randn(B, T, H, device=device, requires_grad=grad)
    v, g = torch.randn(B, T, H, D, device=device, requires_grad=grad), torch.randn(B, T, H, D, device=device)
    q, k, w = (torch.randn(B, H, T, D, device=device, requires_grad=grad) for _ in range(3))
    forms = {"textbook scan": textbook_scan, "chunked scan": chunked_scan}
    if on_gpu() and hasattr(torch, "compile"):
        forms |= {f"{name}, compiled": torch.compile(form) for name, form in list(forms.items())}

    def contestant(run, inputs, output):
        def once():
            with torch.set_grad_enabled(grad):
                o = run()
                if grad:
                    torch.autograd.grad(o, inputs, output)

        return once, finish

    found = {f"PyTorch, {name}": contestant(lambda form=form: form(s, v), (s, v), g) for name, form in forms.items()}
    if hasattr(F, "scaled_dot_product_attention"):  # another function of its inputs: exact attention with a query for each token
        found["PyTorch, SDPA causal"] = contestant(lambda: F.scaled_dot_product_attention(q, k, w, is_causal=True), (q, k, w), torch.randn_like(q))
        half = [x.detach().to(torch.bfloat16).requires_grad_(grad) for x in (q, k, w)]
        found["PyTorch, SDPA causal bf16"] = contestant(lambda: F.scaled_dot_product_attention(*half, is_causal=True), half, torch.randn_like(half[0]))
    usable = {}
    for name, (run, wait) in found.items():
        try:
            run(), wait()
            usable[name] = (run, wait)
        except Exception as error:  # out of memory, or a compiler that is not there: said, and left out
            print(f"    {name} left out: {str(error).splitlines()[0]}", flush=True)
            if on_gpu():
                torch.cuda.empty_cache()
    return usable


def check_numbers(library, s, v, g, found):
    """The figures are of the right numbers: held against the chunked form in 64 bits, with its gradient."""
    s, v = s.double().requires_grad_(), v.double().requires_grad_()
    o = (chunked_scan if s.shape[1] % 16 == 0 else textbook_scan)(s, v)
    ds, dv = torch.autograd.grad(o, (s, v), g.double())
    for name, wanted in (("o", o), ("ds", ds), ("dv", dv)):
        error = (library.read(found[name], wanted.shape) - wanted).abs().max().item()
        if not error < 1e-3 * max(1, wanted.abs().max().item()):
            raise RuntimeError(f"{name} is off by {error} at {tuple(v.shape)}")


def scan_lines(library, sizes, rounds, seconds_each):
    B, T, H, D = (sizes[x] for x in "BTHD")
    rows = B * T * H
    host_s, host_v, host_g = torch.randn(B, T, H), torch.randn(B, T, H, D), torch.randn(B, T, H, D)
    s, v, g = library.memory(host_s), library.memory(host_v), library.memory(host_g)
    o, dv = library.memory(torch.zeros(B, T, H, D)), library.memory(torch.zeros(B, T, H, D))
    L, ds = library.memory(torch.zeros(B, T, H)), library.memory(torch.zeros(B, T, H))
    m, u, w = library.memory(torch.zeros(B, H)), library.memory(torch.zeros(B, H)), library.memory(torch.zeros(B, H, D))
    none = [None] * 3
    numbers = [B, T, H, H, D, 0]
    forward = library.call("scan", s, v, *none, None, o, None, m, u, w, *numbers)
    keeping = library.call("scan", s, v, *none, None, o, L, m, u, w, *numbers)
    backward = library.call("scanBackward", s, v, *none, None, o, L, g, *none, ds, dv, None, None, *numbers)

    keeping(), backward()
    if rows * D <= 2**24:
        check_numbers(library, host_s, host_v, host_g, {"o": o, "ds": ds, "dv": dv})

    def both():
        keeping(), backward()

    forward_bytes, backward_bytes = 4 * rows * (2 * D + 1), 4 * rows * (4 * D + 3)
    lines = []
    for name, run, size_bytes, grad in (
        ("scan, forward", forward, forward_bytes, False),
        ("scan, backward", backward, backward_bytes, None),
        ("scan, forward and backward", both, forward_bytes + 4 * rows + backward_bytes, True),
    ):
        n = size_bytes // 8
        a, b = library.memory(torch.randn(n)), library.memory(torch.zeros(n))
        copy = library.call("copyBlock", a, b, 1, n, n, 0, n, 0)
        contestants = {"ours": (run, library.synchronize), "copy, ours": (copy, library.synchronize), "again": (run, library.synchronize)}
        if on_gpu():
            x, y = torch.randn(n, device="cuda"), torch.empty(n, device="cuda")
            contestants["copy, PyTorch"] = (lambda x=x, y=y: y.copy_(x), finish)
        if grad is not None:
            contestants |= peers_of(B, T, H, D, grad)
        lines.append(line(name, sizes, size_bytes, in_turns(contestants, rounds, seconds_each)))
        library.free(a, b)
    library.free(s, v, g, o, dv, L, ds, m, u, w)
    return lines


def facts(library):
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "device": library.describe(), "emulated": not on_gpu(), "host": platform.processor() or platform.machine(),
        "pytorch": torch.__version__, "cuda": torch.version.cuda, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "commit": git.stdout.strip() or "unknown", "command": " ".join(["python3", *sys.argv]),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--out")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    options = parser.parse_args()
    library = Library(str(Path(options.library).resolve()))
    machine = facts(library)
    print(json.dumps(machine, indent=2), flush=True)
    large = [(B, T, 8) for B, T in ((1, 1024), (1, 16_384), (1, 262_144), (8, 8192), (8, 65_536), (64, 1024), (64, 8192))]
    lines = []
    for B, T, H in [(1, 128, 2), (2, 64, 2)] if options.quick else large:
        for D in (32,) if options.quick else (64, 128):
            lines += scan_lines(library, {"B": B, "T": T, "H": H, "D": D}, 2 if options.quick else 9, 0.001 if options.quick else 0.1)
    if options.out:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Path(options.out).write_text(json.dumps({"machine": machine, "lines": lines}, indent=2) + "\n")
        print(options.out)


if __name__ == "__main__":
    main()
