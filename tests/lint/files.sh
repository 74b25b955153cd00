# SPDX-License-Identifier: Apache-2.0
# Sourced by the lints: `files DIR PATTERN...` prints the tracked files of the tree (all files where there is no git).
files() {
  local root=$1
  shift
  if git -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
    git -C "$root" ls-files -- "$@"
  else
    local p
    for p in "$@"; do
      (cd "$root" && find . -path './build*' -prune -o -type f -name "${p##*/}" -print | sed 's,^\./,,')
    done
  fi
}
