#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Floors of doc/ARCHITECTURE.md: each file may include its own floor, the floors below it, and nothing above.
# One line a floor: files (a pattern) | quoted includes it may have (a pattern).
set -u
root=${1:-.}
. "$(dirname "$0")/files.sh"
floors='
^include/     |^personaflow/
^src/base/    |^(base/|personaflow/types\.h$|config\.h$)
^src/lib\.c$  |^(base/|personaflow/|config\.h$)
^simd/        |^(base/|simd/|config\.h$|[a-z0-9_]+\.(h|inc|def)$|(ref|vec|x86|arm)/)
^model/       |^(base/|simd/simd\.h$|model/|personaflow/(types|model|profile|tokenizer|personaflow)\.h$|config\.h$|[a-z0-9_]+\.(h|inc|def)$)
^analysis/    |^(base/|analysis/|model/(model|tap)\.h$|personaflow/|config\.h$|[a-z0-9_]+\.(h|inc|def)$)
^src/cli/     |^(cli/|personaflow/|config\.h$)
^examples/    |^personaflow/
'
bad=0
while read -r f; do
  rule=$(while IFS='|' read -r who may; do
    who=${who%% *}
    [ -n "$who" ] && [[ $f =~ $who ]] && { echo "$may"; break; }
  done <<<"$floors")
  [ -n "$rule" ] || continue
  while IFS=: read -r line inc; do
    [[ $inc =~ $rule ]] || { echo "$f:$line: includes \"$inc\", which its floor may not"; bad=1; }
  done < <(grep -nE '^ *# *include *"' "$root/$f" | sed -E 's/^([0-9]+):[^"]*"([^"]*)".*/\1:\2/')
done < <(files "$root" '*.c' '*.h' '*.def')
exit $bad
