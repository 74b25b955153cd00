# SPDX-License-Identifier: Apache-2.0
# PF_FP: the arithmetic flags.  Fused multiply-add only where it is written, no re-association; a CFLAGS
# that brings fast-math is refused, because the user's CFLAGS come last on the compiler's line.
AC_DEFUN([PF_FP], [
  FP_CFLAGS="-ffp-contract=off -fno-fast-math -fno-associative-math -fno-unsafe-math-optimizations"
  AC_SUBST([FP_CFLAGS])
  AC_COMPILE_IFELSE([AC_LANG_SOURCE([[
#ifdef __FAST_MATH__
#error fast
#endif
int main(void) { return 0; }]])], [],
    [AC_MSG_ERROR([CFLAGS="$CFLAGS" switches fast-math on; the results would not be the contract's. Take it out.])])
])
