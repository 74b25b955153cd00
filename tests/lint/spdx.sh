#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every source file says its licence in its first three lines.
set -u
root=${1:-.}
. "$(dirname "$0")/files.sh"
bad=0
while read -r f; do
  head -n 3 "$root/$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
    { echo "$f: no SPDX-License-Identifier line"; bad=1; }
done < <(files "$root" '*.c' '*.h' '*.def' '*.sh' '*.py' '*.inc' '*.am' '*.ac' '*.m4' '.ci/run')
exit $bad
