/* SPDX-License-Identifier: Apache-2.0
 * Conversations from JSON. */
#include "cli/messages.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bad(const char *path, const char *what) {
  fprintf(stderr,
          "personaflow: %s: %s; wanted is [{\"role\": \"user\", \"content\": \"...\"}, ...]\n",
          cli_text_name(path), what);
  return 3;
}

/* The text of {"type": "text", "text": ...} parts joined, in the place of the list. False: another
 * kind of part. */
static bool join_parts(json_t *message, json_t *parts) {
  json_t *joined = json_string(""), *part;
  size_t i;
  json_array_foreach(parts, i, part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    json_t *text = json_object_get(part, "text");
    json_t *more = !type || strcmp(type, "text") != 0 || !json_is_string(text)
                       ? NULL
                       : json_sprintf("%s%s", json_string_value(joined), json_string_value(text));
    json_decref(joined);
    if (!(joined = more))
      return false;
  }
  return joined && json_object_set_new(message, "content", joined) == 0;
}

static int fill(const char *path, json_t *list, cli_messages *out) {
  size_t n = json_array_size(list);
  if (!json_is_array(list) || n == 0)
    return bad(path, "not a non-empty array of messages");
  if (!(out->v = calloc(n, sizeof *out->v)))
    return bad(path, "out of memory");
  for (; out->n < n; out->n++) {
    json_t *m = json_array_get(list, out->n), *role = json_object_get(m, "role"),
           *content = json_object_get(m, "content");
    if (json_is_array(content) && !join_parts(m, content))
      return bad(path, "a content with parts that are not text");
    content = json_object_get(m, "content");
    if (!json_is_string(role) || !json_is_string(content))
      return bad(path, "a message without a text role and a text content");
    if (strlen(json_string_value(content)) != json_string_length(content))
      return bad(path, "a content with a NUL character");
    out->v[out->n] = (pf_message){json_string_value(role), json_string_value(content)};
  }
  return 0;
}

int cli_messages_read(const char *path, cli_messages *out) {
  *out = (cli_messages){0};
  size_t n;
  char *text = cli_read_text(path, &n);
  if (!text)
    return 3;
  json_error_t e;
  json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
  free(text);
  if (!root) {
    fprintf(stderr, "personaflow: %s: invalid JSON: line %d, column %d: %s\n", cli_text_name(path),
            e.line, e.column, e.text);
    return 3;
  }
  out->json = root;
  json_t *inner = json_object_get(root, "messages");
  return fill(path, inner ? inner : root, out);
}

void cli_messages_free(cli_messages *m) {
  free(m->v);
  json_decref(m->json);
  *m = (cli_messages){0};
}
