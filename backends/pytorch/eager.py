#!/usr/bin/env python3
"""PyTorch eager reference for burnmark's default experiment: same decoder, same sizes, same workloads.

Runs the decoder of `src/model` in PyTorch eager with `scaled_dot_product_attention`, f32, on the CPU, and
writes the classic results structure (`model.training`, `.inference`, `.generation`). Everything is measured
in one process with a monotonic clock; there is no device to synchronise on a CPU.

    python3 backends/pytorch/eager.py --output docs/results/pytorch_eager.json
"""

import argparse
import gc
import json
import platform
import time

import numpy as np
import torch
import torch.nn.functional as F


class RMSNorm(torch.nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


class Layer(torch.nn.Module):
    def __init__(self, a):
        super().__init__()
        self.heads, self.kv_heads = a.heads, a.kv_heads
        self.head_dim = a.hidden // a.heads
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.attn_norm, self.mlp_norm = RMSNorm(a.hidden, a.eps), RMSNorm(a.hidden, a.eps)
        self.q = linear(a.hidden, a.hidden)
        self.k = linear(a.hidden, self.kv_heads * self.head_dim)
        self.v = linear(a.hidden, self.kv_heads * self.head_dim)
        self.o = linear(a.hidden, a.hidden)
        self.gate, self.up = linear(a.hidden, a.intermediate), linear(a.hidden, a.intermediate)
        self.down = linear(a.intermediate, a.hidden)

    def forward(self, x, cos, sin, cache, position):
        b, s, _ = x.shape
        h = self.attn_norm(x)
        q = self.q(h).view(b, s, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(h).view(b, s, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(h).view(b, s, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        if cache is not None:
            keys, values = cache
            keys[:, :, position : position + s] = k
            values[:, :, position : position + s] = v
            k, v = keys[:, :, : position + s], values[:, :, : position + s]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=s > 1, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, s, -1))
        h = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(torch.nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = a
        self.embed = torch.nn.Embedding(a.vocab, a.hidden)
        self.layers = torch.nn.ModuleList(Layer(a) for _ in range(a.layers))
        self.norm = RMSNorm(a.hidden, a.eps)
        self.head = torch.nn.Linear(a.hidden, a.vocab, bias=False)
        d = a.hidden // a.heads
        inv = 1.0 / (a.theta ** (torch.arange(0, d, 2, dtype=torch.float64) / d))
        angles = torch.outer(torch.arange(a.positions, dtype=torch.float64), inv)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())
        for p in self.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.02)

    def forward(self, ids, cache=None, position=0, last_only=False):
        s = ids.shape[1]
        cos, sin = self.cos[position : position + s], self.sin[position : position + s]
        x = self.embed(ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, cache[i] if cache else None, position)
        x = self.norm(x[:, -1:] if last_only else x)
        return self.head(x)


def stats(seconds):
    ms = np.asarray(seconds) * 1e3
    return {
        "mean_ms": float(ms.mean()), "std_ms": float(ms.std()), "median_ms": float(np.median(ms)),
        "min_ms": float(ms.min()), "max_ms": float(ms.max()),
        "p95_ms": float(np.percentile(ms, 95)), "p99_ms": float(np.percentile(ms, 99)),
        "samples_ms": [round(float(m), 6) for m in ms],
    }


def timed(step, make, warmup, count):
    times = []
    for i in range(warmup + count):
        x = make()
        start = time.perf_counter()
        step(x)
        elapsed = time.perf_counter() - start
        if i >= warmup:
            times.append(elapsed)
    return {"wall_clock_time": stats(times)}


def cpu_name():
    with open("/proc/cpuinfo") as f:
        return next((l.split(":", 1)[1].strip() for l in f if l.startswith("model name")), platform.processor())


def main():
    p = argparse.ArgumentParser()
    for name, default in [("vocab", 1000), ("hidden", 512), ("intermediate", 1376), ("layers", 4), ("heads", 8),
                          ("kv-heads", 2), ("positions", 2048), ("batch-size", 2), ("seq-length", 512),
                          ("warmup-steps", 10), ("benchmark-steps", 50), ("prompt", 128), ("new-tokens", 128),
                          ("iterations", 20), ("threads", 0)]:
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--eps", type=float, default=1e-5)
    p.add_argument("--theta", type=float, default=10000.0)
    p.add_argument("--output")
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = Decoder(a)
    ids = lambda b, s: torch.randint(a.vocab, (b, s))

    def train(x):
        logits = model(x)
        loss = F.cross_entropy(logits[:, :-1].reshape(-1, a.vocab), x[:, 1:].reshape(-1))
        loss.backward()
        model.zero_grad(set_to_none=True)

    result = {"training": timed(train, lambda: ids(a.batch_size, a.seq_length), a.warmup_steps, a.benchmark_steps)}
    gc.collect()
    with torch.inference_mode():
        result["inference"] = timed(model, lambda: ids(a.batch_size, a.seq_length), a.warmup_steps, a.benchmark_steps)
        first, gaps, totals = [], [], []
        d = a.hidden // a.heads
        for i in range(a.iterations + 3):
            prompt, tokens = ids(1, a.prompt), [ids(1, 1) for _ in range(a.new_tokens - 1)]
            cache = [[torch.empty(1, a.kv_heads, a.prompt + a.new_tokens, d) for _ in range(2)] for _ in range(a.layers)]
            marks = [time.perf_counter()]
            model(prompt, cache, 0, last_only=True)
            marks.append(time.perf_counter())
            for n, token in enumerate(tokens):
                model(token, cache, a.prompt + n)
                marks.append(time.perf_counter())
            if i >= 3:
                spans = np.diff(marks)
                first.append(spans[0]); gaps.extend(spans[1:]); totals.append(marks[-1] - marks[0])
        result["generation"] = {"first_token_latency": stats(first), "per_token_latency": stats(gaps),
                                "total_generation": {**stats(totals), "output_tokens": a.new_tokens}}
    record = {"program": "pytorch eager, scaled_dot_product_attention, float32", "config": vars(a),
              "environment": {"torch": torch.__version__, "python": platform.python_version(), "cpu": cpu_name(),
                              "threads": torch.get_num_threads(), "os": platform.platform()}, "model": result}
    if a.output:
        with open(a.output, "w") as f:
            json.dump(record, f, indent=1)
            f.write("\n")
    g = result["generation"]
    for name, s in [("training", result["training"]["wall_clock_time"]), ("inference", result["inference"]["wall_clock_time"]),
                    ("first token", g["first_token_latency"]), ("per token", g["per_token_latency"])]:
        print(f"{name:12} mean {s['mean_ms']:9.3f} ms   median {s['median_ms']:9.3f} ms   std {s['std_ms']:.3f} ms")


if __name__ == "__main__":
    main()
