# SPDX-License-Identifier: Apache-2.0
# Sourced by the lints: `files DIR PATTERN...` prints the tracked files that match; without git, all files but those that
# the build makes (as .gitignore lists them).
files() {
  local root=$1 p
  shift
  if git -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
    git -C "$root" ls-files -- "$@"
    return
  fi
  for p in "$@"; do
    (cd "$root" && find . \( -name .git -o -path './build*' -o -path './out-*' -o -name autom4te.cache -o -name __pycache__ \) \
      -prune -o -type f \( -path "./$p" -o -name "$p" \) -print |
      sed 's,^\./,,' |
      grep -vE '^(aclocal\.m4|configure~?|config\.h\.in~?|Makefile\.in|m4/(libtool|lt.*)\.m4|.*\.(o|lo|la|swp))$')
  done
}
