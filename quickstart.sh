#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to the study of the demo model, or to the passed tests:
#   ./quickstart.sh         install what is missing, build, run the study, say where the report is
#   ./quickstart.sh test    install what is missing, build, run the test suite
# Everything is made in build/; the study's results go to out-demo/. Run it again as often as you like: what is there
# is kept. Settings, all optional, come from the environment:
#   PF_BUILD=DIR            build there instead
#   PF_CONFIGURE_FLAGS=...  more arguments for configure
#   PF_NO_INSTALL=1         do not look at packages (another system, or your own builds of the libraries)
#   PF_MODEL=DIR PF_GRID=G PF_OUT=DIR   another study
# Exit codes: 0 done, 1 build or test failed, 2 usage, 5 packages cannot be installed here; else the study's own.
set -u
cd "$(dirname "$0")" || exit 1
root=$PWD
build=${PF_BUILD:-build}
model=${PF_MODEL:-data/models/demo-gemma2}
grid=${PF_GRID:-demo}
out=${PF_OUT:-out-demo}
jobs=$(nproc 2>/dev/null || echo 2)
# A program that was built elsewhere (PF_BUILD) does not find this folder by itself.
export PERSONAFLOW_DATADIR=${PERSONAFLOW_DATADIR:-$root/data}

# What to install; of names joined by | any one will do and the first is installed. doc/DEPENDENCIES.md says why.
packages='gcc|clang libc6-dev make autoconf automake libtool pkg-config|pkgconf
  libopenblas-serial-dev|libopenblas-pthread-dev|libopenblas-openmp-dev
  liburing-dev libjansson-dev libpcre2-dev libutf8proc-dev libssl-dev check libmpfr-dev'

say() { printf '== %s\n' "$*"; }
fail() { # code, line
  printf 'quickstart: %s\n' "$2" >&2
  exit "$1"
}

installed() { # any of a|b|c
  local p
  for p in ${1//|/ }; do
    # one line for each architecture that it is installed for
    dpkg-query -W -f='${Architecture} ${db:Status-Status}\n' "$p" 2>/dev/null |
      grep -qxE "($(dpkg --print-architecture)|all) installed" && return 0
  done
  return 1
}

missing_packages() {
  local p
  for p in $packages; do
    installed "$p" || echo "${p%%|*}"
  done
}

apt_install() {
  local sudo=
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail 5 "not root and no sudo here; as root: apt-get install $*"
    sudo=sudo
  fi
  local apt=($sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y)
  compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || "${apt[@]}" update ||
    fail 5 "apt-get update failed; the packages needed are: $*"
  # Lists of last month name versions that are gone: fetch new ones and try once more.
  "${apt[@]}" install --no-install-recommends "$@" ||
    { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; } ||
    fail 5 "apt-get could not install: $*"
}

set_up() {
  [ -z "${PF_NO_INSTALL:-}" ] || return 0
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian or Ubuntu. Install what these packages hold, then run PF_NO_INSTALL=1 ./quickstart.sh:"
    printf '  %s\n' $packages | sed 's/|.*//'
    exit 5
  fi
  local need
  need=$(missing_packages)
  [ -n "$need" ] || return 0
  say "installing Debian packages:" $need
  apt_install $need
}

# logged NAME COMMAND...: quiet unless it fails, then the end of its output.
logged() {
  local log=$build/$1.log
  shift
  "$@" >"$log" 2>&1 </dev/null && return 0
  tail -n 40 "$log" >&2
  fail 1 "'$*' failed; its whole output is in $log"
}

configure_build() {
  local flags="--disable-static ${PF_CONFIGURE_FLAGS:-}"
  [ "$(cat "$build/.flags" 2>/dev/null)" = "$flags" ] && [ -f "$build/Makefile" ] && return 0
  say "configure $flags"
  (cd "$build" && "$root/configure" $flags) >"$build/configure.log" 2>&1 </dev/null || {
    tail -n 5 "$build/configure.log" >&2
    fail 1 "configure failed; its whole output is in $build/configure.log"
  }
  printf '%s' "$flags" >"$build/.flags"
}

build_it() {
  mkdir -p "$build" || fail 1 "cannot make the folder $build"
  if [ ! -x configure ] || [ ! -f Makefile.in ]; then
    say "autogen.sh (makes configure)"
    logged autogen ./autogen.sh
  fi
  configure_build
  say "make (in $build)"
  logged make make -C "$build" -j"$jobs"
}

# Results that are there are kept: a second run computes what is missing, and prints the table either way.
run_study() {
  say "personaflow study $model --protocol paper --grid $grid --out $out"
  "$build/personaflow" study "$model" --protocol paper --grid "$grid" --out "$out" || exit $?
  case $out in /*) ;; *) out=$root/$out ;; esac
  say "open $out/report.html in a browser"
}

# Automake's totals as one closing line; what a passing program left out is listed above it.
close_tests() { # the output of make check, its exit code
  local p f s x
  total() { awk -v k="# $1:" 'index($0, k) == 1 {n += $NF} END {print n + 0}' "$log"; }
  local log=$1 rc=$2
  p=$(($(total PASS) + $(total XFAIL)))
  s=$(total SKIP)
  f=$(($(total FAIL) + $(total XPASS) + $(total ERROR)))
  if [ "$rc" != 0 ] && [ "$f" = 0 ]; then
    tail -n 40 "$log" >&2
    echo "make check stopped before its end (exit code $rc); its whole output is in $log" >&2
    f=1
  fi
  x=$(find "$build/tests" -name '*.trs' -exec grep -l '^:test-result: PASS' {} + | sort | sed 's/trs$/log/' | xargs -r cat |
    grep -E '^([a-z0-9_]+: )?(SKIP(PED)?[: ]|skip  )' | grep -v '^SKIP tests/')
  if [ -n "$x" ]; then # groups of cases that a program left out count as skipped, though the program passed
    s=$((s + $(wc -l <<<"$x")))
    printf 'skipped:\n%s\n' "$x"
  fi
  echo "$p passed, $f failed, $s skipped"
  [ "$rc" = 0 ] && [ "$f" = 0 ] && [ "$p" -gt 0 ]
}

run_tests() {
  say "make check"
  local log=$build/check.log
  make -C "$build" check -j"$jobs" </dev/null 2>&1 | tee "$log" |
    grep --line-buffered -E '^(PASS|FAIL|SKIP|XFAIL|XPASS|ERROR): |^# (TOTAL|PASS|SKIP|XFAIL|FAIL|XPASS|ERROR):'
  local rc=${PIPESTATUS[0]}
  [ "$rc" = 0 ] || sed -n '/^FAIL/,$p' "$build/test-suite.log" 2>/dev/null | grep -v '^$' | tail -n 60
  close_tests "$log" "$rc" || exit 1
}

case ${1:-} in
'' | test) ;;
-h | --help) sed -n '3,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) fail 2 "unknown argument '$1'; there is only './quickstart.sh' and './quickstart.sh test'" ;;
esac
set_up
build_it
if [ "${1:-}" = test ]; then run_tests; else run_study; fi
