/* SPDX-License-Identifier: Apache-2.0
 * The page is the one place where figures and tables are made; this takes them out of it, so it
 * knows the few elements that our pages have. */
#include "config.h"

#include "analysis/pageparts.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef PF_HAVE_RSVG
#include <cairo.h>
#include <librsvg/rsvg.h>
#endif

#include "analysis/pagetable.h"
#include "analysis/svg.h"
#include "base/io.h"
#include "base/status.h"
#include "personaflow/analysis.h"

enum { NAME = 64, PATH_SIZE = 4400 };
#define FIGURES "figures"
#define TABLES  "tables"

/* ---- folders --------------------------------------------------------------------------------- */

/* The names of the parts that a page has made, one a line: only those are the next page's to
 * remove. */
#define LIST ".parts"
enum { LIST_LIMIT = 1 << 20 };

/* "01-...svg": a name that a part may have; a list may be anybody's. */
static bool is_part(const char *name) {
  const char *dot = strrchr(name, '.');
  return isdigit((unsigned char)name[0]) && isdigit((unsigned char)name[1]) && name[2] == '-' &&
         !strchr(name, '/') && dot &&
         (!strcmp(dot, ".svg") || !strcmp(dot, ".png") || !strcmp(dot, ".csv"));
}

static int make_folder(const char *path) {
  return mkdir(path, 0777) != 0 && errno != EEXIST
             ? pf_fail(PF_EIO, "%s: cannot make the folder: %s", path, strerror(errno))
             : PF_OK;
}

/* Makes the folder, or removes what the page before this one has made there. */
static int empty_folder(const char *dir, const char *sub) {
  char path[PATH_SIZE], file[2 * PATH_SIZE];
  pf_buf list = {0};
  snprintf(path, sizeof path, "%s/%s", dir, sub);
  snprintf(file, sizeof file, "%s/" LIST, path);
  int rc = make_folder(path);
  if (rc != PF_OK || access(file, F_OK) != 0)
    return rc;
  rc = pf_read_file(file, LIST_LIMIT, &list);
  for (char *at = rc == PF_OK ? list.s : NULL, *end; at && (end = strchr(at, '\n')); at = end + 1) {
    *end = '\0';
    snprintf(file, sizeof file, "%s/%s", path, at);
    if (is_part(at))
      unlink(file);
  }
  pf_buf_free(&list);
  return rc;
}

static int write_list(const char *dir, const char *sub, const pf_buf *list) {
  char path[PATH_SIZE];
  snprintf(path, sizeof path, "%s/%s/" LIST, dir, sub);
  return pf_buf_status(list) == PF_OK ? pf_write_file(path, pf_buf_str(list), list->n) : PF_ENOMEM;
}

/* ---- names ------------------------------------------------------------------------------------
 */

/* "Which way the persona takes" -> "which-way-the-persona-takes". */
static void slug(const char *heading, const char *end, char out[NAME]) {
  pf_buf b = {0};
  size_t n = 0;
  pf_page_plain(heading, end, &b);
  for (const char *s = pf_buf_str(&b); *s && n + 1 < NAME - 8; s++) {
    if (isalnum((unsigned char)*s))
      out[n++] = (char)tolower((unsigned char)*s);
    else if (n && out[n - 1] != '-')
      out[n++] = '-';
  }
  while (n && out[n - 1] == '-')
    n--;
  out[n] = '\0';
  pf_buf_free(&b);
}

/* ---- figures --------------------------------------------------------------------------------- */

const char *pf_figure_formats(void) {
#ifdef PF_HAVE_RSVG
  return "svg, png";
#else
  return "svg";
#endif
}

#ifdef PF_HAVE_RSVG
static int write_png(const char *path, const pf_buf *svg, double w, double h) {
  enum { SCALE = 2 };
  RsvgRectangle all = {0, 0, SCALE * w, SCALE * h};
  GError *e = NULL;
  RsvgHandle *r = rsvg_handle_new_from_data((const guint8 *)svg->s, svg->n, &e);
  cairo_surface_t *s =
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)(SCALE * w), (int)(SCALE * h));
  cairo_t *c = cairo_create(s);
  int rc = PF_OK;
  if (!r || !rsvg_handle_render_document(r, c, &all, &e) ||
      cairo_surface_write_to_png(s, path) != CAIRO_STATUS_SUCCESS)
    rc = pf_fail(PF_EIO, "%s: cannot draw: %s", path, e ? e->message : "cairo failed");
  cairo_destroy(c);
  cairo_surface_destroy(s);
  if (r)
    g_object_unref(r);
  g_clear_error(&e);
  return rc;
}
#else
static int write_png(const char *path, const pf_buf *svg, double w, double h) {
  (void)path, (void)svg, (void)w, (void)h;
  return PF_OK;
}
#endif

/* [s, end): an svg element of ours, whose size is its viewBox. name: "01-heading". */
static int write_figure(const char *dir, const char *name, const char *s, const char *end,
                        pf_buf *list) {
  char path[PATH_SIZE];
  double w = 0, h = 0;
  pf_buf b = {0};
  const char *inside = strchr(s, '>') + 1;
  if (sscanf(s, "<svg viewBox=\"0 0 %lf %lf\"", &w, &h) != 2)
    return pf_fail(PF_EINTERNAL, "a figure without a size");
  pf_buf_printf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\"", w, h);
  pf_buf_add(&b, s + 4, (size_t)(inside - s - 4));
  pf_buf_puts(&b, pf_figure_style);
  pf_buf_add(&b, inside, (size_t)(end - inside));
  pf_buf_puts(&b, "\n");
  int rc = pf_buf_status(&b);
  pf_buf_printf(list, "%s.svg\n%s.png\n", name, name);
  snprintf(path, sizeof path, "%s/" FIGURES "/%s.svg", dir, name);
  if (rc == PF_OK)
    rc = pf_write_file(path, b.s, b.n);
  snprintf(path, sizeof path, "%s/" FIGURES "/%s.png", dir, name);
  if (rc == PF_OK)
    rc = write_png(path, &b, w, h);
  pf_buf_free(&b);
  return rc;
}

/* ---- tables ---------------------------------------------------------------------------------- */

static int write_table(const char *dir, const char *name, const char *s, const char *end,
                       pf_buf *list) {
  char path[PATH_SIZE];
  pf_buf b = {0};
  int rc = pf_page_csv(s, end, &b);
  pf_buf_printf(list, "%s.csv\n", name);
  snprintf(path, sizeof path, "%s/" TABLES "/%s.csv", dir, name);
  if (rc == PF_OK)
    rc = pf_write_file(path, pf_buf_str(&b), b.n);
  pf_buf_free(&b);
  return rc;
}

/* ---- the page -------------------------------------------------------------------------------- */

/* Every figure and table of the page, in its order; their names are listed. */
static int write_parts(const char *dir, const char *html, pf_buf *figures, pf_buf *tables) {
  char heading[NAME] = "page", name[NAME + 16];
  int n_figures = 0, n_tables = 0, rc = PF_OK;
  for (const char *s = html, *end; *s && rc == PF_OK; s++) {
    if (pf_page_opens(s, "<h2") && (end = strstr(s, "</h2>"))) {
      slug(strchr(s, '>') + 1, end, heading);
    } else if (pf_page_opens(s, "<svg") && (end = strstr(s, "</svg>"))) {
      snprintf(name, sizeof name, "%02d-%s", ++n_figures, heading);
      rc = write_figure(dir, name, s, end + 6, figures);
    } else if (pf_page_opens(s, "<table") && (end = strstr(s, "</table>"))) {
      snprintf(name, sizeof name, "%02d-%s", ++n_tables, heading);
      rc = write_table(dir, name, s, end, tables);
    }
  }
  return rc;
}

int pf_page_parts(const char *dir, const char *html) {
  pf_buf figures = {0}, tables = {0};
  int rc = empty_folder(dir, FIGURES);
  if (rc == PF_OK)
    rc = empty_folder(dir, TABLES);
  if (rc != PF_OK)
    return rc;
  rc = write_parts(dir, html, &figures, &tables);
  int f = write_list(dir, FIGURES, &figures), t = write_list(dir, TABLES, &tables);
  rc = rc != PF_OK ? rc : f != PF_OK ? f : t; /* what was written before a failure is listed too */
  pf_buf_free(&figures);
  pf_buf_free(&tables);
  return rc;
}
