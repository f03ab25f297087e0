#!/usr/bin/env python3
"""PyTorch behind burnmark's cell protocol: `burnmark --backend pytorch:eager,...` starts this file.

A job arrives as one JSON document on standard input, events leave as JSON lines on standard output, with the same
workloads, clocks and checks as burnmark's own cells (`src/cell`). The device says how PyTorch executes: `eager`,
`compile` (torch.compile's default), `reduce-overhead`, `max-autotune`; on the GPU if there is one, else, or with a
trailing `:cpu`, on the processor.

Variants: `default` is the plain model (separate projections, repeated key-value heads, explicit mask and softmax, cache
by concatenation); `example` uses `scaled_dot_product_attention` on grouped heads, a preallocated cache, and the last
position's logits alone in generation.
"""

import gc
import json
import math
import os
import struct
import subprocess
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    torch, MISSING = None, error

# Element types of the weights: for training, for inference. `mixed` trains under autocast, as PyTorch's users do.
DTYPES = {"f32": ("float32",) * 2, "f64": ("float64",) * 2, "bf16": ("bfloat16",) * 2, "mixed": ("float32", "bfloat16")}
# Modes that record CUDA graphs.
GRAPH_MODES = ("reduce-overhead", "max-autotune")
EXECUTIONS = {"eager": None, "compile": "default", "reduce-overhead": "reduce-overhead", "max-autotune": "max-autotune"}


class Unsupported(Exception):
    """What was asked for is not there; the message says what to do."""


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Layer(torch.nn.Module if torch else object):
    def __init__(self, c, optimised, **kind):
        super().__init__()
        self.c, self.optimised = c, optimised
        self.head_dim = c["hidden_size"] // c["num_attention_heads"]
        key_value = c["num_key_value_heads"] * self.head_dim
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False, **kind)
        hidden, inner = c["hidden_size"], c["intermediate_size"]
        self.input_layernorm = torch.nn.Parameter(torch.ones(hidden, **kind))
        self.post_attention_layernorm = torch.nn.Parameter(torch.ones(hidden, **kind))
        self.q_proj, self.o_proj = linear(hidden, hidden), linear(hidden, hidden)
        self.k_proj, self.v_proj = linear(hidden, key_value), linear(hidden, key_value)
        self.gate_proj, self.up_proj, self.down_proj = linear(hidden, inner), linear(hidden, inner), linear(inner, hidden)

    def norm(self, x, weight):
        if self.optimised:
            return F.rms_norm(x, (x.shape[-1],), weight, self.c["rms_norm_eps"])
        wide = x.float() if x.dtype == torch.bfloat16 else x
        return (wide / (wide.pow(2).mean(-1, keepdim=True) + self.c["rms_norm_eps"]).sqrt()).to(x.dtype) * weight

    def attend(self, q, k, v, mask):
        if self.optimised:
            causal = mask is None and q.shape[2] > 1
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = q @ k.transpose(2, 3) / math.sqrt(self.head_dim)
        if mask is None and q.shape[2] > 1:
            shape = (q.shape[2], k.shape[2])
            mask = torch.ones(shape, dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ v

    def forward(self, x, cos, sin, cache, positions):
        batch, seq, _ = x.shape
        h = self.norm(x, self.input_layernorm)
        heads = lambda y: y.view(batch, seq, -1, self.head_dim).transpose(1, 2)
        q, k, v = heads(self.q_proj(h)), heads(self.k_proj(h)), heads(self.v_proj(h))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mask = None
        if cache is not None:
            k, v, mask = cache.append(k, v, positions)
        x = x + self.o_proj(self.attend(q, k, v, mask).transpose(1, 2).reshape(batch, seq, -1))
        h = self.norm(x, self.post_attention_layernorm)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Growing:
    """A cache by concatenation."""

    def __init__(self):
        self.keys = self.values = None

    def restart(self):
        self.keys = self.values = None

    def append(self, k, v, _):
        if self.keys is not None:
            k, v = torch.cat((self.keys, k), dim=2), torch.cat((self.values, v), dim=2)
        self.keys, self.values = k, v
        return k, v, None


class Preallocated:
    """A cache written in place; `static` attends to all of it behind a mask, so that no shape depends on the position."""

    def __init__(self, shape, static, **kind):
        self.keys, self.values, self.static = torch.zeros(shape, **kind), torch.zeros(shape, **kind), static
        if static:
            # A recorded graph then reads and writes them where they are.
            for cache in (self.keys, self.values):
                torch._dynamo.mark_static_address(cache)

    def restart(self):
        pass

    def append(self, k, v, positions):
        if self.static:
            self.keys.index_copy_(2, positions, k)
            self.values.index_copy_(2, positions, v)
            seen = torch.arange(self.keys.shape[2], device=k.device)
            return self.keys, self.values, seen[None, :] <= positions[:, None]
        first, end = positions
        self.keys[:, :, first:end], self.values[:, :, first:end] = k, v
        # A causal mask is implied only where the queries are all there is.
        mask = None
        if 0 < first < end - 1:
            mask = torch.ones((end - first, end), dtype=torch.bool, device=k.device).tril(first)
        return self.keys[:, :, :end], self.values[:, :, :end], mask


class Decoder(torch.nn.Module if torch else object):
    def __init__(self, c, optimised, **kind):
        super().__init__()
        self.c, self.optimised, self.kind = c, optimised, kind
        self.embed_tokens = torch.nn.Embedding(c["vocab_size"], c["hidden_size"], **kind)
        self.layers = torch.nn.ModuleList(Layer(c, optimised, **kind) for _ in range(c["num_hidden_layers"]))
        self.final_norm = torch.nn.Parameter(torch.ones(c["hidden_size"], **kind))
        self.lm_head = torch.nn.Linear(c["hidden_size"], c["vocab_size"], bias=False, **kind)
        d = c["hidden_size"] // c["num_attention_heads"]
        inverse = 1.0 / (c["rope_theta"] ** (torch.arange(0, d, 2, dtype=torch.float64) / d))
        angles = torch.outer(torch.arange(c["max_position_embeddings"], dtype=torch.float64), inverse)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos().to(**kind))
        self.register_buffer("sin", angles.sin().to(**kind))
        for parameter in self.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, caches=None, positions=None, last=False):
        if positions is None:
            cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        elif isinstance(positions, tuple):
            cos, sin = self.cos[slice(*positions)], self.sin[slice(*positions)]
        else:
            cos, sin = self.cos[positions], self.sin[positions]
        x = self.embed_tokens(ids)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, caches and caches[index], positions)
        x = self.layers[0].norm(x[:, -1:] if last else x, self.final_norm)
        return self.lm_head(x)

    def loss(self, ids):
        logits = self(ids)[:, :-1]
        logits = logits.float() if logits.dtype == torch.bfloat16 else logits
        return F.cross_entropy(logits.reshape(-1, self.c["vocab_size"]), ids[:, 1:].reshape(-1))

    def named(self):
        """Parameters under their Hugging Face names."""
        yield "model.embed_tokens.weight", self.embed_tokens.weight
        for index, layer in enumerate(self.layers):
            for name, parameter in layer.named_parameters():
                part = name.split(".")[0]
                place = "" if part.endswith("layernorm") else "self_attn." if part[0] in "qkvo" else "mlp."
                yield f"model.layers.{index}.{place}{part}.weight", parameter
        yield "model.norm.weight", self.final_norm
        yield "lm_head.weight", self.lm_head.weight


class Session:
    """Generation in progress."""

    def __init__(self, bench, batch, capacity):
        c, self.bench, self.length = bench.c, bench, 0
        shape = (batch, c["num_key_value_heads"], capacity, c["hidden_size"] // c["num_attention_heads"])
        make = lambda: Preallocated(shape, bench.mode is not None, **bench.kind) if bench.optimised else Growing()
        self.caches = [make() for _ in range(c["num_hidden_layers"])]

    def restart(self):
        self.length = 0
        for cache in self.caches:
            cache.restart()

    def feed(self, ids):
        positions = (self.length, self.length + ids.shape[1])
        self.length = positions[1]
        if self.bench.optimised and self.bench.mode is not None:
            positions = torch.arange(*positions, device=ids.device)
        return self.bench.forward(ids, self.caches, positions, self.bench.optimised)[:, -1]


# Student's 97.5 % quantile at the 9 degrees of freedom of 10 batches.
BATCHES, QUANTILE = 10, 2.2621571627409915


def relative_half_width(values):
    """Half of the 95 % interval of the mean as a share of it, by batch means, as `src/stats/batch_means.rs` has it."""
    size = len(values) // BATCHES
    if size < 2:
        return None
    kept = values[len(values) - size * BATCHES :]
    means = [sum(kept[first : first + size]) / size for first in range(0, len(kept), size)]
    mean = sum(means) / BATCHES
    variance = sum((value - mean) ** 2 for value in means) / (BATCHES - 1)
    return QUANTILE * math.sqrt(variance / BATCHES) / mean if mean > 0 else None


class Enough:
    """Tells from the samples so far, beginning now, what ends them if anything does, as `src/measure/steps.rs` does."""

    def __init__(self, stopping):
        self.percent, self.seconds = stopping.get("half_width_percent"), stopping.get("max_seconds")
        self.started, self.asked = time.monotonic(), 0

    def __call__(self, samples):
        if self.percent is not None and len(samples) >= self.asked + max(self.asked // 10, 10):
            self.asked = len(samples)
            share = relative_half_width(samples)
            if share is not None and share * 100 <= self.percent:
                return "narrow enough"
        if self.seconds is not None and time.monotonic() - self.started >= self.seconds:
            return "time"
        return None


class Bench:
    """A job's model on its device."""

    def __init__(self, spec, emit):
        self.spec, self.emit, self.c = spec, emit, dict(spec["model"])
        _, *rest = spec["backend"].split(":")
        execution = rest[0] if rest else "eager"
        if execution not in EXECUTIONS or rest[1:] not in ([], ["cpu"]):
            raise Unsupported(f"backend `{spec['backend']}`: use pytorch:{{{','.join(EXECUTIONS)}}}, perhaps with :cpu behind")
        if spec["precision"] not in DTYPES:
            raise Unsupported(f"precision {spec['precision']}: the PyTorch cell computes in {' or '.join(DTYPES)}")
        self.execution, self.mode = execution, EXECUTIONS[execution]
        self.cuda = torch.cuda.is_available() and rest[1:] != ["cpu"]
        self.device = torch.device("cuda" if self.cuda else "cpu")
        if spec.get("seed") is not None:
            torch.manual_seed(spec["seed"])

    def model(self, variant, trained=False):
        if variant not in ("default", "example"):
            raise Unsupported(f"variant `{variant}`: the PyTorch cell has `default` and `example`")
        self.optimised = variant == "example"
        weights = DTYPES[self.spec["precision"]][0 if trained else 1]
        self.kind = {"device": self.device, "dtype": getattr(torch, weights)}
        model = Decoder(self.c, self.optimised, **self.kind)
        self.forward, self.loss = self.compiled(model.forward), self.compiled(model.loss)
        if trained and self.spec["precision"] == "mixed":
            self.loss = torch.autocast(self.device.type, torch.bfloat16)(self.loss)
        return model

    def compiled(self, function):
        if not self.mode:
            return function
        function = torch.compile(function, mode=self.mode)

        def step(*given):
            # A recorded graph may overwrite what it returned before.
            torch.compiler.cudagraph_mark_step_begin()
            return function(*given)

        return step

    def sync(self):
        if self.cuda:
            torch.cuda.synchronize()

    def time(self, work):
        self.sync()
        start = time.perf_counter_ns()
        work()
        self.sync()
        return time.perf_counter_ns() - start

    def ids(self, batch, seq):
        return torch.randint(self.c["vocab_size"], (batch, seq)).to(self.device)

    # Memory: the caching allocator's own counters on a GPU, the resident set on a processor.

    def figure(self, cuda, resident, source="resident set"):
        if self.cuda:
            return {"bytes": cuda(), "source": "PyTorch's caching allocator"}
        if resident is None:
            return {"bytes": None, "source": source, "note": "PyTorch does not count its allocations on the processor"}
        return {"bytes": resident(), "source": source}

    def peak(self):
        if self.cuda and self.mode in GRAPH_MODES:
            why = "what recorded graphs work in is not counted as allocated when they are replayed; reserved holds it"
            return {"bytes": None, "source": "PyTorch's caching allocator", "note": why}
        return self.figure(lambda: torch.cuda.max_memory_allocated(), lambda: resident("VmHWM"))

    def reset_peak(self):
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            write("/proc/self/clear_refs", "5")

    def release(self):
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def run(self, workload, steps, step):
        series, ended_by = [], "count"
        for phase, count in (("warmup", steps["warmup_steps"]), ("measure", steps["benchmark_steps"])):
            if phase == "measure":
                self.reset_peak()
                enough = Enough(self.spec.get("stopping", {}))
            times = []
            if count:
                self.emit("phase_started", workload=workload, phase=phase, steps=count)
            for done in range(1, count + 1):
                times.append(step(phase))
                total = times[-1]
                if done % 10 == 0 or done == count:
                    self.emit("progress", workload=workload, phase=phase, step=done, steps=count, step_ns=total)
                ended = enough(times) if phase == "measure" and done < count else None
                if ended:
                    ended_by = ended
                    break
            series.append(times)
        return *series, ended_by

    def observe(self, workload, steps, step, sequences, tokens, start, generation=None, optimizer=None):
        warmup, samples, ended_by = self.run(workload, steps, step)
        memory = {
            "start": start,
            "peak": self.peak(),
            "current": self.figure(lambda: torch.cuda.memory_allocated(), None),
            "reserved": self.figure(lambda: torch.cuda.memory_reserved(), lambda: resident("VmRSS")),
        }
        return {
            "workload": workload, "warmup_ns": warmup, "samples_ns": samples, "ended_by": ended_by, "optimizer_ns": optimizer,
            "generation": generation, "sequences_per_sample": sequences, "tokens_per_sample": tokens, "memory": memory,
        }

    def finish(self, observation):
        self.release()
        observation["memory"]["after_release"] = self.in_use()
        self.emit("observed", **observation)

    def in_use(self):
        return self.figure(lambda: torch.cuda.memory_allocated(), None)

    def opened(self):
        self.emit("opened", device=self.report(), applied={
            "requested_mode": self.spec["mode"], "precision": self.spec["precision"], "notes": [],
            "execution": "eager" if self.mode is None else f"torch.compile, mode {self.mode}",
        })

    def measure(self):
        spec, workloads = self.spec, self.spec["workloads"]
        self.opened()
        batch, seq = spec["batch_size"], spec["seq_length"]
        if workloads.get("training"):
            self.training(workloads["training"], batch, seq)
        with torch.inference_mode():
            if workloads.get("inference"):
                start = self.in_use()
                model = self.model(spec["variant"])
                step = lambda _: self.inference_step(self.ids(batch, seq))
                observation = self.observe("inference", workloads["inference"], step, batch, batch * seq, start)
                del model, self.forward, self.loss
                self.finish(observation)
            if workloads.get("generation"):
                self.generation(workloads["generation"])

    def inference_step(self, ids):
        return self.time(lambda: self.forward(ids))

    def training(self, spec, batch, seq):
        start = self.in_use()
        model = self.model(self.spec["variant"], trained=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4) if spec["optimizer"] == "adamw" else None
        updates = []

        def step(phase):
            ids = self.ids(batch, seq)

            def backward():
                self.loss(ids).backward()
                if optimizer is None:
                    model.zero_grad(set_to_none=True)

            def update():
                optimizer.step()
                model.zero_grad(set_to_none=True)

            total = self.time(backward)
            if optimizer is not None:
                updates.append((phase, self.time(update)))
                total += updates[-1][1]
            return total

        observation = self.observe("training", spec["steps"], step, batch, batch * seq, start)
        if optimizer is not None:
            observation["optimizer_ns"] = [ns for phase, ns in updates if phase == "measure"]
        del model, optimizer, self.forward, self.loss
        self.finish(observation)

    def generation(self, spec):
        start = self.in_use()
        model = self.model(self.spec["variant"])
        series = {"first_token_ns": [], "per_token_ns": []}
        batch, new = spec["batch_size"], spec["new_tokens"]
        session = Session(self, batch, spec["prompt_tokens"] + new)

        def step(phase):
            prompt, tokens = self.ids(batch, spec["prompt_tokens"]), [self.ids(batch, 1) for _ in range(new - 1)]
            session.restart()
            first = self.time(lambda: session.feed(prompt))
            gaps = [self.time(lambda token=token: session.feed(token)) for token in tokens]
            if phase == "measure":
                series["first_token_ns"].append(first)
                series["per_token_ns"].append(gaps)
            return first + sum(gaps)

        steps = {"warmup_steps": spec["warmup_iterations"], "benchmark_steps": spec["iterations"]}
        observation = self.observe("generation", steps, step, batch, batch * new, start, generation=series)
        del session, model, self.forward, self.loss
        self.finish(observation)

    def report(self):
        if self.cuda:
            name, threads = torch.cuda.get_device_name(), None
        else:
            name, threads = processor(), torch.get_num_threads()
        return {"backend": "pytorch", "device": self.spec["backend"], "name": name, "driver": reached_by(self.cuda), "threads": threads}

    # Proof of numbers, against a reference file.

    def verify(self):
        spec = self.spec
        if not spec.get("reference"):
            raise Unsupported("PyTorch is verified against a file: give one with --reference, or name a Burn backend before it")
        self.opened()
        arrays, metadata = read_safetensors(spec["reference"])
        ids, greedy = arrays["input_ids"].long(), arrays["greedy_ids"].long()
        self.c = json.loads(metadata["config"])
        self.c["max_position_embeddings"] = ids.shape[1] + greedy.shape[1]
        for variant in spec["variants"]:
            checks = self.checks(variant, arrays, ids.to(self.device), greedy)
            self.emit("verified", reference=str(spec["reference"]), checks=checks)

    def checks(self, variant, arrays, ids, greedy):
        limits, checks = self.spec["tolerance"], []

        def loaded(trained):
            model = self.model(variant, trained)
            with torch.no_grad():
                for name, parameter in model.named():
                    parameter.copy_(arrays[name])
            return model

        def check(what, against, error, limit, note=None):
            finite = math.isfinite(error)
            entry = {"variant": variant, "what": what, "against": against, "error": error if finite else None,
                     "tolerance": limit, "passed": finite and error <= limit}
            checks.append(entry if note is None else {**entry, "note": note})

        model = loaded(trained=True)
        loss = self.loss(ids)
        computed = loss.detach().clone()
        loss.backward()
        check("loss", "reference", relative_l2(computed, arrays["loss"].reshape(())), limits["logits"])
        for name, parameter in model.named():
            check(f"grad.{name}", "reference", relative_l2(parameter.grad, arrays[f"grad.{name}"]), limits["gradients"])
        model = loaded(trained=False)
        with torch.inference_mode():
            full = self.forward(ids).clone()
            check("logits", "reference", relative_l2(full, arrays["logits"]), limits["logits"])
            worst = (0.0, 0)
            session = Session(self, *ids.shape)
            for position in range(ids.shape[1]):
                error = relative_l2(session.feed(ids[:, position : position + 1]), full[:, position])
                worst = max(worst, (error, position))
            check("cached decode", "its own full forward", worst[0], limits["logits"], f"at every position, worst at {worst[1]}")
            session, tokens = Session(self, ids.shape[0], ids.shape[1] + greedy.shape[1]), []
            feed = ids
            for _ in range(greedy.shape[1]):
                feed = session.feed(feed).argmax(-1, keepdim=True)
                tokens.append(feed.cpu())
            share = (torch.cat(tokens, dim=1) != greedy).double().mean().item() if tokens else 0.0
            check("greedy continuation", "reference", share, 0.0 if self.spec["precision"] in ("f32", "f64") else 1.0)
        return checks


def relative_l2(a, b):
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    error = ((a - b).norm() / (b.norm().item() or 1.0)).item()
    return math.inf if math.isnan(error) else error


def read_safetensors(path):
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header, data = json.loads(file.read(size)), bytearray(file.read())
    except (OSError, ValueError, struct.error) as error:
        raise Unsupported(f"reference file `{path}`: {error}") from error
    kinds = {"F32": torch.float32, "F64": torch.float64, "I32": torch.int32, "I64": torch.int64}
    metadata, arrays = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        kind = kinds[entry["dtype"]]
        flat = torch.frombuffer(data[first:end], dtype=kind) if end > first else torch.empty(0, dtype=kind)
        arrays[name] = flat.reshape(entry["shape"])
    return arrays, metadata


def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def reached_by(cuda):
    """PyTorch with its version, and NVIDIA's driver where that tells its own."""
    library = f"PyTorch {torch.__version__}"
    if not cuda:
        return library
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return library
    return f"{library}, NVIDIA driver {told[0]}" if told else library


def processor():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "processor")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def devices(emit):
    names = [("cuda", torch.cuda.get_device_name(), reached_by(True), torch.cuda.get_device_properties(0).total_memory)] if torch.cuda.is_available() else []
    names.append(("cpu", processor(), reached_by(False), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    suffix = {"cuda": "", "cpu": ":cpu" if len(names) > 1 else ""}
    found = [{"device": f"pytorch:{execution}{suffix[kind]}", "name": name, "driver": driver,
              "memory_bytes": memory, "dtypes": ["f64", "f32", "bf16"], "device_clock": kind == "cuda"} for kind, name, driver, memory in names for execution in EXECUTIONS]
    emit("found", devices=found, capabilities={"fusion": True, "autotune": True, "graph_capture": torch.cuda.is_available(), "tf32": False, "mixed": torch.cuda.is_available(), "synchronous": False})


def main():
    # Standard output is for events alone: what libraries print goes to standard error.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(event, **fields):
        events.write(json.dumps({"event": event, **fields}) + "\n")

    try:
        job = json.load(sys.stdin)
        if torch is None:
            raise Unsupported(f"{MISSING}; `pip install torch==2.9.1` puts PyTorch in place")
        if job["job"] == "devices":
            devices(emit)
        elif job["job"] == "verify":
            Bench(job, emit).verify()
        elif job["job"] == "measure":
            Bench(job, emit).measure()
        else:
            raise Unsupported("PyTorch's cell runs workloads and verifies them; peaks and operations are those of Burn's backends")
        emit("finished")
    except Unsupported as error:
        emit("failed", kind="unsupported", message=str(error))
    except MemoryError as error:
        emit("failed", kind="out_of_memory", message=str(error) or "the processor's memory ran out")
    except Exception as error:  # the parent keeps standard error with the trace
        import traceback

        traceback.print_exc()
        memory = torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)
        emit("failed", kind="out_of_memory" if memory else "crashed", message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
