#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The C files are as clang-format 14 writes them. `format.sh DIR --fix` rewrites them.
set -u
root=${1:-.}
. "$(dirname "$0")/files.sh"
command -v clang-format >/dev/null ||
  { echo "clang-format is missing. On Debian: apt-get install clang-format"; exit 1; }
cd "$root" || exit 1
bad=0
while read -r f; do
  if [ "${2:-}" = --fix ]; then
    clang-format -i --style=file "$f"
  elif ! clang-format --style=file "$f" | cmp -s - "$f"; then
    echo "$f: not as clang-format writes it (bash tests/lint/format.sh . --fix)"
    bad=1
  fi
done < <(files . '*.c' '*.h')
exit $bad
