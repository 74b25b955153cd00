/* SPDX-License-Identifier: Apache-2.0
 * OpenAI-style conversations: a JSON array of {"role": ..., "content": ...}, or an object with that
 * array as "messages". */
#ifndef PF_CLI_MESSAGES_H
#define PF_CLI_MESSAGES_H

#include "cli/cli.h"

typedef struct cli_messages {
  pf_message *v;
  size_t n;
  void *json; /* owns the strings */
} cli_messages;

/* path "-" is standard input. Returns an exit code, 0 = fine; the line has been printed. */
int cli_messages_read(const char *path, cli_messages *out);
void cli_messages_free(cli_messages *m);

#endif
