# SPDX-License-Identifier: Apache-2.0
# PF_SANITIZE: --enable-sanitize[=LIST] builds everything with the compiler's sanitizers (default address,undefined) and
# stops at the first finding.  The flags go to SANITIZE_CFLAGS, which compiling and linking share.
AC_DEFUN([PF_SANITIZE], [
  AC_ARG_ENABLE([sanitize],
    [AS_HELP_STRING([--enable-sanitize@<:@=LIST@:>@], [build with sanitizers (default list: address,undefined)])],
    [], [enable_sanitize=no])
  AS_CASE([$enable_sanitize],
    [no], [SANITIZE_CFLAGS=],
    [yes], [SANITIZE_CFLAGS="-fsanitize=address,undefined"],
    [SANITIZE_CFLAGS="-fsanitize=$enable_sanitize"])
  AS_IF([test "x$SANITIZE_CFLAGS" != x], [
    SANITIZE_CFLAGS="$SANITIZE_CFLAGS -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
    AC_MSG_CHECKING([whether $CC links with $SANITIZE_CFLAGS])
    pf_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS $SANITIZE_CFLAGS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AC_MSG_RESULT([yes])],
      [AC_MSG_RESULT([no])
       AC_MSG_ERROR([$CC cannot build with --enable-sanitize=$enable_sanitize; with clang on Debian install libclang-rt-14-dev])])
    CFLAGS=$pf_save_CFLAGS])
  AC_SUBST([SANITIZE_CFLAGS])
])
