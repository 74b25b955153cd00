#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# No path of one machine and no package host in the tree; the optional test data is named in one place only.
set -u
root=${1:-.}
. "$(dirname "$0")/files.sh"
bad=0
pattern='(^|[^A-Za-z0-9_.])/(work|home/[a-z]+|root|Users)/|deb\.debian\.org|pypi\.org|(\.\./)+shared'
allowed='^(tests|\.ci)/[^:]*:[0-9]+:.*\.\./shared/data|^tests/lint/paths\.sh:'
while read -r f; do
  case $f in *.safetensors | *.npy | *tokenizer.json | *tokenizer.model) continue ;; esac
  hits=$(grep -InE "$pattern" "$root/$f" | sed "s,^,$f:," | grep -vE "$allowed" | cut -c1-160)
  [ -z "$hits" ] || { echo "$hits"; bad=1; }
done < <(files "$root" '*')
[ $bad = 0 ] || echo "paths of a machine or hosts in the tree"
exit $bad
