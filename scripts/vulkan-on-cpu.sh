#!/usr/bin/env bash
# Installs a Vulkan driver that runs on the processor, on Debian bookworm: Mesa's llvmpipe 25 from backports (the 22.3 of
# plain bookworm crashes on matrix products). For tests, not for speed. Newer releases: `apt install mesa-vulkan-drivers`.
set -euo pipefail
list=/etc/apt/sources.list.d/bookworm-backports.sources
mirror="$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources | head -1)"
[ -e "$list" ] || cat > "$list" <<S
Types: deb
URIs: ${mirror:-http://deb.debian.org/debian}
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
S
apt-get update -qq
apt-get install -y -qq -t bookworm-backports mesa-vulkan-drivers libvulkan1 >/dev/null
