# SPDX-License-Identifier: Apache-2.0
# PF_FP: the arithmetic flags.  Fused multiply-add only where it is written, no re-association, no excess precision.
# The user's CFLAGS come last on the compiler's line and can undo ours, so a CFLAGS that does is refused here; one given
# to make instead of configure is caught by the canary in every kernel library (make check).
AC_DEFUN([PF_FP], [
  FP_CFLAGS="-ffp-contract=off -fno-fast-math -fno-associative-math -fno-unsafe-math-optimizations"
  # clang 14 for aarch64 says of every file that its default (traps are not looked at) is what it has.
  pf_save_CFLAGS=$CFLAGS
  CFLAGS="$CFLAGS $FP_CFLAGS -Werror"
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])], [], [FP_CFLAGS="$FP_CFLAGS -Wno-unsupported-floating-point-opt"])
  CFLAGS=$pf_save_CFLAGS
  AC_SUBST([FP_CFLAGS])
  AC_MSG_CHECKING([whether CFLAGS keep the contract's arithmetic])
  pf_fp=yes
  AC_COMPILE_IFELSE([AC_LANG_SOURCE([[
#if defined __FAST_MATH__ || defined __ASSOCIATIVE_MATH__ || defined __RECIPROCAL_MATH__ || defined __NO_SIGNED_ZEROS__
#error re-association
#endif
#if defined __FINITE_MATH_ONLY__ && __FINITE_MATH_ONLY__
#error NaN and Inf are part of the contract
#endif
#if __FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2
#error excess precision
#endif
int main(void) { return 0; }]])], [], [pf_fp=no])
  AS_CASE([" $CFLAGS "],
    [*-ffp-contract=fast*|*-ffp-contract=on*|*-funsafe-math*|*-fassociative-math*|*-Ofast*|*-mdaz-ftz*|*-msoft-float*],
    [pf_fp=no])
  AC_MSG_RESULT([$pf_fp])
  AS_IF([test "x$pf_fp" = xno],
    [AC_MSG_ERROR([CFLAGS="$CFLAGS" changes floating-point arithmetic; the results would not be the contract's. Take the flag out.])])
])
