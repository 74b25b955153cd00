#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Putting the captured value back at every hook point changes no bit of the logits (tests/inv_model.c).
set -u
: "${srcdir:=.}" "${PF_TEST_TIER:=normal}" "${PF_EMULATOR:=}"
case $PF_TEST_TIER in
small) models=("$srcdir"/tests/mini/{g2-window,q2-odd}) ;;
*) models=("$srcdir"/tests/mini/*/ "$srcdir"/data/models/*/) ;;
esac
$PF_EMULATOR ./tests/inv_model noop "$PF_TEST_TIER" all "${models[@]%/}"
