"""What a PyTorch user would run instead, on the same sizes: started by bench/peers/torch.mjs and asked for one run at a time,
so that its runs lie between ours. One JSON object a line in, one out: {"work": ..., sizes} -> {"seconds": [...]}."""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)


# ---- the scan of Aaren (docs/architecture.md): softmax attention of one query over every prefix ------------------------


def join(left, right):
    """(m, u, w) of two sets: what the scan adds with."""
    m = torch.maximum(left[0], right[0])
    a, b = torch.exp(left[0] - m), torch.exp(right[0] - m)
    return m, a * left[1] + b * right[1], a[..., None] * left[2] + b[..., None] * right[2]


def prefixes(m, u, w):
    """All prefixes along dimension 1 in log2(N) rounds, as the paper's algorithm 1 (Hillis & Steele 1986)."""
    step = 1
    while step < m.shape[1]:
        both = join([x[:, :-step] for x in (m, u, w)], [x[:, step:] for x in (m, u, w)])
        m, u, w = (torch.cat([x[:, :step], y], 1) for x, y in zip((m, u, w), both))
        step *= 2
    return m, u, w


def textbook_scan(s, v):
    _, u, w = prefixes(s, torch.ones_like(s), v)
    return w / u[..., None]


def chunked_scan(s, v, chunk=16, segment=4096):
    """A product with a triangle of weights inside chunks, the scan over chunks' totals; in segments that stay in the caches."""
    B, T, H, D = v.shape
    mask = s.new_ones(chunk, chunk).tril().log()
    carry = (s.new_full((B, 1, H), -math.inf), s.new_zeros(B, 1, H), s.new_zeros(B, 1, H, D))
    out = []
    for at in range(0, T, segment):
        n = min(segment, T - at) // chunk
        sc = s[:, at : at + n * chunk].reshape(B, n, chunk, H).transpose(2, 3)  # [B, n, H, c]
        vc = v[:, at : at + n * chunk].reshape(B, n, chunk, H, D).transpose(2, 3)
        m = torch.cummax(sc, -1).values
        p = torch.exp(sc[..., None, :] - m[..., None] + mask)
        u, w = p.sum(-1), p @ vc
        totals = [torch.cat([c, x], 1) for c, x in zip(carry, (m[..., -1], u[..., -1], w[..., -1, :]))]
        pm, pu, pw = prefixes(*totals)
        carry = (pm[:, -1:], pu[:, -1:], pw[:, -1:])
        top = torch.maximum(m, pm[:, :-1, :, None])
        a, b = torch.exp(pm[:, :-1, :, None] - top), torch.exp(m - top)
        below = a * pu[:, :-1, :, None] + b * u
        o = (a / below)[..., None] * pw[:, :-1, :, None] + (b / below)[..., None] * w
        out.append(o.transpose(2, 3).reshape(B, n * chunk, H, D))
    return torch.cat(out, 1)


def scan_work(sizes):
    B, T, H, D = (sizes[x] for x in "BTHD")
    grad = sizes.get("grad", False)
    s, v = torch.randn(B, T, H), torch.randn(B, T, H, D)
    g = torch.randn(B, T, H, D)
    s.requires_grad_(grad), v.requires_grad_(grad)
    form = {"textbook": textbook_scan, "chunked": chunked_scan}[sizes["form"]]

    def run():
        with torch.set_grad_enabled(grad):
            o = form(s, v)
            if grad:
                torch.autograd.grad(o, (s, v), g)

    return run


# ---- linear attention (FAVOR+), causal, and the exact one ------------------------------------------------------------------


def features(x, omega, query):
    """Positive features; the shift of keys is one maximum a head, as in the code that is in use."""
    x = x * x.shape[-1] ** -0.25
    a = x @ omega.T
    shift = a.amax(-1, keepdim=True) if query else a.amax((-1, -2), keepdim=True)
    return torch.exp(a - x.square().sum(-1, keepdim=True) / 2 - shift) + 1e-6


def performer(q, k, v, omega, chunk):
    """[H, T, D]: a product with a triangle inside chunks, the state between them."""
    mask = torch.ones(chunk, chunk).tril()
    phi_q, phi_k = features(q, omega, True), features(k, omega, False)
    S = q.new_zeros(q.shape[0], omega.shape[0], v.shape[-1] + 1)
    out = []
    for at in range(0, q.shape[1], chunk):
        fq, fk = phi_q[:, at : at + chunk], phi_k[:, at : at + chunk]
        vc = F.pad(v[:, at : at + chunk], (0, 1), value=1.0)
        o = (fq @ fk.transpose(1, 2) * mask) @ vc + fq @ S
        out.append(o[..., :-1] / o[..., -1:])
        S = S + fk.transpose(1, 2) @ vc
    return torch.cat(out, 1)


def heads(sizes):
    q, k, v = (torch.randn(sizes["H"], sizes["T"], sizes["D"]) for _ in range(3))
    for x in (q, k, v):
        x.requires_grad_(sizes["train"])
    return q, k, v


def timed_form(form, inputs, train):
    g = torch.ones_like(inputs[0])

    def run():
        with torch.set_grad_enabled(train):
            o = form(*inputs)
            if train:
                torch.autograd.grad(o, inputs, g)

    return run


def performer_work(sizes):
    omega = torch.randn(sizes["M"], sizes["D"])
    return timed_form(lambda q, k, v: performer(q, k, v, omega, sizes["chunk"]), heads(sizes), sizes["train"])


def attention_work(sizes):
    T = sizes["T"]
    mask = torch.full((T, T), -math.inf).triu(1)
    form = lambda q, k, v: torch.softmax(torch.baddbmm(mask, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5), -1) @ v
    return timed_form(form, heads(sizes), sizes["train"])


# ---- its own Transformer layer, causal ----------------------------------------------------------------------------------


def layer_work(sizes):
    B, T, C, H, hidden = (sizes[x] for x in ("B", "T", "C", "H", "hidden"))
    layer = nn.TransformerEncoderLayer(C, H, hidden, dropout=0.0, activation="gelu", batch_first=True)
    x = torch.randn(B, T, C)
    mask = nn.Transformer.generate_square_subsequent_mask(T)
    if not sizes["train"]:
        layer.eval()

        def forward():
            with torch.no_grad():
                layer(x, mask)

        return forward
    layer.train()
    y = torch.randn(B, T, C)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(layer(x, mask), y).backward()
        optimizer.step()

    return step


class Cached(nn.Module):
    """The same layer one token at a time, with room for the keys and values of the tokens before it."""

    def __init__(self, C, H, hidden, capacity):
        super().__init__()
        self.C, self.H = C, H
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.linear1, self.linear2 = nn.Linear(C, hidden), nn.Linear(hidden, C)
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.k, self.v = torch.randn(H, capacity, C // H), torch.randn(H, capacity, C // H)

    def forward(self, x, at):
        q, k, v = self.qkv(x).view(3, self.H, 1, self.C // self.H)
        self.k[:, at : at + 1], self.v[:, at : at + 1] = k, v
        scores = q @ self.k[:, : at + 1].transpose(1, 2) * (self.C // self.H) ** -0.5
        mixed = self.out((scores.softmax(-1) @ self.v[:, : at + 1]).view(1, self.C))
        x = self.norm1(x + mixed)
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


def stream_work(sizes):
    """Steps at one position, the row given as a list's worth of numbers and the result read, as our steps are."""
    C, at, steps = sizes["C"], sizes["at"], sizes["steps"]
    layer = Cached(C, sizes["H"], sizes["hidden"], at + 1).eval()
    row = torch.randn(1, C).numpy()
    numbers = []

    @torch.inference_mode()
    def run():
        numbers.clear()
        for _ in range(steps):
            start = time.perf_counter()
            layer(torch.from_numpy(row), at).numpy()
            numbers.append(time.perf_counter() - start)
        return numbers

    return run


def copy_work(sizes):
    a = torch.randn(sizes["bytes"] // 8)
    b = torch.empty_like(a)
    return lambda: b.copy_(a)


def matmul_work(sizes):
    n = sizes["n"]
    a, b = torch.randn(n, n), torch.randn(n, n)
    y = torch.empty(n, n)
    return lambda: torch.mm(a, b, out=y)


works = {
    "scan": scan_work,
    "performer": performer_work,
    "attention": attention_work,
    "layer": layer_work,
    "stream": stream_work,
    "copy": copy_work,
    "matmul": matmul_work,
}


def main():
    ready = {}
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["work"] == "facts":
                answer = {"version": torch.__version__, "threads": torch.get_num_threads(), "capability": torch.__config__.show()}
            elif asked["work"] == "forget":
                ready.clear()
                answer = {}
            else:
                if line not in ready:
                    ready[line] = works[asked["work"]](asked)
                start = time.perf_counter()
                each = ready[line]()
                taken = time.perf_counter() - start
                answer = {"seconds": each if isinstance(each, list) else [taken]}
        except (RuntimeError, MemoryError) as error:
            answer = {"error": str(error).splitlines()[0]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
