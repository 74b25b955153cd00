# SPDX-License-Identifier: Apache-2.0
# PF_ISA(name, flags, program-prologue, program-body)
# Compiles and links a program that uses the intrinsics of an instruction set with its flags; the CPU of
# the build machine plays no part.  Defines the conditional PF_ISA_<NAME>, the macro PF_HAVE_<NAME> and
# the flags in <NAME>_CFLAGS.  --disable-<name> leaves the instruction set out.
AC_DEFUN([PF_ISA], [
  AC_ARG_ENABLE([$1], [AS_HELP_STRING([--disable-$1], [leave out the $1 kernels])],
                [], [enable_$1=auto])
  pf_isa_$1=no
  AS_IF([test "x$enable_$1" != xno], [
    AC_CACHE_CHECK([whether $CC builds $1 intrinsics with "$2"], [pf_cv_isa_$1], [
      pf_save_CFLAGS=$CFLAGS
      CFLAGS="$CFLAGS $2"
      AC_LINK_IFELSE([AC_LANG_PROGRAM([$3], [$4])], [pf_cv_isa_$1=yes], [pf_cv_isa_$1=no])
      CFLAGS=$pf_save_CFLAGS])
    pf_isa_$1=$pf_cv_isa_$1
    AS_IF([test "x$enable_$1" = xyes && test "x$pf_isa_$1" = xno],
          [AC_MSG_ERROR([--enable-$1 was asked for, but $CC cannot build it])])])
  AS_VAR_IF([pf_isa_$1], [yes], [
    AC_DEFINE(AS_TR_CPP([PF_HAVE_$1]), [1], [Build the $1 kernels.])
    AC_SUBST(AS_TR_CPP([$1_CFLAGS]), ["$2"])])
  AM_CONDITIONAL(AS_TR_CPP([PF_ISA_$1]), [test "x$pf_isa_$1" = xyes])
])
