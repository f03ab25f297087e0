#!/usr/bin/env bash
# Puts the LibTorch in place that Burn's `tch` feature links: PyTorch 2.9.1 from PyPI. Afterwards
# `cargo run --release --features tch -- --backend tch` builds and runs with nothing exported: `.cargo/config.toml` tells
# the build to use that PyTorch, and the program remembers where its libraries are.
set -euo pipefail
python="${PYTHON:-python3}"
"$python" -m pip install --quiet 'torch==2.9.1' numpy
"$python" -c 'import torch; print("PyTorch", torch.__version__, "in", torch.__path__[0])'
command -v c++ >/dev/null || { echo "a C++ compiler is needed as well (on Debian: apt install g++)"; exit 1; }
