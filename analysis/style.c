/* SPDX-License-Identifier: Apache-2.0
 * The look of our pages: light, dark and on paper; colours that the colour-blind tell apart (Okabe
 * and Ito 2008). */
#include "analysis/svg.h"

/* Of figures: series, soft text, rules; in the light. */
#define C0   "#0072b2"
#define C1   "#d55e00"
#define C2   "#009e73"
#define C3   "#b5588c"
#define FG   "#1b1f24"
#define SOFT "#59636e"
#define RULE "#d1d9e0"

/* A figure by itself: the same rules with colours in place of variables, which not every viewer
 * knows, on white. */
const char pf_figure_style[] =
    "<style>"
    "text{font-family:'DejaVu Sans',sans-serif;font-size:13px;fill:" FG "}"
    ".tick{fill:" SOFT ";font-size:12px}.panel{font-weight:600;font-size:14px}.key{font-size:13px}"
    ".frame{fill:none;stroke:" RULE "}.grid{stroke:" RULE ";stroke-width:.6}"
    ".rule{stroke:" SOFT ";stroke-dasharray:5 4}"
    ".line{fill:none;stroke-width:2.2;stroke-linejoin:round}.band{opacity:.2;stroke:none}"
    ".line.c0{stroke:" C0 "}.line.c1{stroke:" C1 ";stroke-dasharray:7 3}.line.c2{stroke:" C2
    ";stroke-dasharray:2 3}.line.c3{stroke:" C3 ";stroke-dasharray:9 3 2 3}"
    ".band.c0,.dot.c0{fill:" C0 "}.band.c1,.dot.c1{fill:" C1 "}.band.c2,.dot.c2{fill:" C2 "}"
    ".band.c3,.dot.c3{fill:" C3 "}"
    "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";

static const char page_style[] =
    "<style>\n"
    ":root{--bg:#fff;--fg:" FG ";--soft:" SOFT ";--rule:" RULE ";--card:#f6f8fa;--c0:" C0
    ";--c1:" C1 ";--c2:" C2 ";--c3:" C3 ";"
    "--p0:#dbeafe;--p1:#fde9d3;--p2:#d9f2e6;--p3:#efe4f7;--p4:#eceff2}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#0f1318;--fg:#e6e9ed;--soft:#9aa4af;--rule:#"
    "313a44;--card:#171d24;"
    "--c0:#56b4e9;--c1:#f0894a;--c2:#3fc79a;--c3:#e39bc4;--p0:#17324d;--p1:#4a2f14;--p2:#12402e;--"
    "p3:#3a2450;--"
    "p4:#2a323b}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 "
    "system-ui,-apple-system,"
    "'Segoe UI',Roboto,'Noto Sans',sans-serif}\n"
    "main{max-width:1020px;margin:0 auto;padding:32px 20px "
    "64px}h1{font-size:30px;line-height:1.2;margin:0 0 4px}\n"
    "h2{font-size:21px;margin:44px 0 8px;padding-top:14px;border-top:1px solid "
    "var(--rule)}p{max-width:86ch;margin:10px 0}\n"
    ".sub{color:var(--soft);margin:0 0 18px}.card{background:var(--card);border:1px solid "
    "var(--rule);border-radius:8px;"
    "padding:6px 20px;margin:18px 0}.card li{margin:8px 0;max-width:92ch}.card "
    "ul{padding-left:20px}\n"
    "figure{margin:18px "
    "0;overflow-x:auto}figcaption{color:var(--soft);font-size:14px;max-width:110ch;margin-top:4px}"
    "\n"
    "svg{display:block;width:100%;min-width:720px;height:auto;font:13px system-ui,'Segoe "
    "UI',sans-serif}\n"
    "svg .tick{fill:var(--soft);font-size:12px}svg "
    ".panel{fill:var(--fg);font-weight:600;font-size:14px}\n"
    "svg .key{fill:var(--fg);font-size:13px}svg .frame{fill:none;stroke:var(--rule)}svg "
    ".grid{stroke:var(--rule);"
    "stroke-width:.6}svg .rule{stroke:var(--soft);stroke-dasharray:5 4}\n"
    "svg .line{fill:none;stroke-width:2.2;stroke-linejoin:round}svg .band{opacity:.2;stroke:none}\n"
    "svg .line.c0{stroke:var(--c0)}svg .line.c1{stroke:var(--c1);stroke-dasharray:7 3}svg "
    ".line.c2{stroke:var(--c2);"
    "stroke-dasharray:2 3}svg .band.c0,svg .dot.c0{fill:var(--c0)}svg .band.c1,svg "
    ".dot.c1{fill:var(--c1)}svg .band.c2,"
    "svg .dot.c2{fill:var(--c2)}svg .line.c3{stroke:var(--c3);stroke-dasharray:9 3 2 3}svg "
    ".band.c3,svg .dot.c3{fill:var(--c3)}\n"
    ".texts{table-layout:fixed;width:100%;min-width:720px}.texts th:first-child{width:9em}.texts "
    "td{overflow-wrap:anywhere}\n"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px;margin:14px "
    "0;font-variant-numeric:tabular-nums}\n"
    "th,td{text-align:right;padding:5px 12px;border-bottom:1px solid "
    "var(--rule);vertical-align:top}th{font-weight:600;"
    "color:var(--soft)}td.t,th.t{text-align:left}td "
    "small{color:var(--soft);white-space:nowrap}td.t "
    "small{white-space:normal}td.t{max-width:46em}.num td.t{max-width:13em}.num td,.num "
    "th{padding:5px 8px}\n"
    "code,.mono{font:13px ui-monospace,'DejaVu Sans Mono',monospace;overflow-wrap:anywhere}\n"
    ".prompt{font:14px/2 ui-monospace,'DejaVu Sans "
    "Mono',monospace;white-space:pre-wrap;background:var(--card);border:1px solid "
    "var(--rule);border-radius:8px;padding:12px 16px}.prompt span{padding:2px "
    "1px;border-radius:3px}\n"
    ".s0{background:var(--p0)}.s1{background:var(--p4)}.s2{background:var(--p1)}.s3{background:var("
    "--p2)}"
    ".s4{background:var(--p3)}\n"
    ".tag{font-size:12px;color:var(--soft);border:1px solid "
    "var(--rule);border-radius:9px;padding:0 7px;white-space:nowrap}\n"
    "@media screen and (max-width:640px){main{padding:20px 12px}table{display:block;overflow-x:"
    "auto;max-width:100%}}\n"
    "@media "
    "print{body{font-size:11px}main{max-width:none;padding:0}h2{break-after:avoid}figure,tr,.card{"
    "break-inside:avoid}"
    "svg{min-width:0}.wide,figure{overflow:visible}*{print-color-adjust:exact;-webkit-print-color-"
    "adjust:exact}}\n"
    "</style>\n";

void pf_page_open(pf_buf *b, const char *title) {
  pf_buf_puts(b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                 "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                 "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
  pf_html_text(b, title);
  pf_buf_puts(b, "</title>\n");
  pf_buf_puts(b, page_style);
  pf_buf_puts(b, "</head><body><main>\n");
}
