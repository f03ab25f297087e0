#!/usr/bin/env bash
# Installs the browser that the tests open HTML reports in: Chromium, on Debian. `BURNMARK_TEST_BROWSER=chromium cargo test`
# then runs them; without the variable they are left out.
set -euo pipefail
command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }
chromium --version
