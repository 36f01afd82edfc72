"""The style sheet of all pages: report, comparison, inspection, plan."""

from train.reporting.charts.palette import DARK, LIGHT, STYLE
from train.reporting.enlarge_style import ENLARGE_STYLE


def _variables(palette: dict[str, str]) -> str:
    return ":root { " + " ".join(f"--{name}: {color};" for name, color in palette.items()) + " }"


_COLORS = f"""
:root {{ color-scheme: light dark; }}
{_variables(LIGHT)}
@media screen and (prefers-color-scheme: dark) {{ {_variables(DARK)} }}
"""

_TEXT = """\
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 0 1rem 1rem; max-width: 76rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .8rem 0 .2rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
h4 { font-size: .95rem; margin: 1rem 0 .3rem; }
p { margin: .4rem 0; }
a { color: var(--link); }
.weak { color: var(--weak); }
.lead { font-size: 1.15rem; line-height: 1.4; margin: .5rem 0; max-width: 60rem; }
pre { background: var(--card); padding: .6rem .7rem; border-radius: .5rem; white-space: pre-wrap;
  margin: .4rem 0; }
code, pre { font: .9em/1.5 ui-monospace, monospace; }
summary { cursor: pointer; color: var(--link); padding: .3rem 0; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
"""

# Sections stop below the navigation, which stays on top.
_NAVIGATION = """\
nav { position: sticky; top: 0; z-index: 5; margin: 0 -1rem; padding: 0 .6rem; overflow-x: auto;
  white-space: nowrap; background: var(--back); border-bottom: 1px solid var(--line); }
nav a { display: inline-block; padding: .5rem .45rem; font-size: .9rem; text-decoration: none; }
nav a:hover { text-decoration: underline; }
html { scroll-behavior: smooth; scroll-padding-top: 3rem; }
@media (prefers-reduced-motion: reduce) {
  html { scroll-behavior: auto; }
  *, ::before, ::after { animation: none !important; transition: none !important; }
}
"""

# Rows of tiles have no holes: those of the last row grow.
_BLOCKS = """\
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: .7rem 0; }
.tiles > div { flex: 1 1 8.4rem; min-width: 0; }
.tiles > .main { flex: 3 1 17rem; }
.tiles > div, figure { background: var(--card); border-radius: .5rem; padding: .6rem .7rem; }
.tiles b { display: block; font-size: 1.25rem; line-height: 1.3; }
.tiles .main b { font-size: 2rem; line-height: 1.2; }
.tiles span { color: var(--weak); font-size: .85rem; }
.track { position: relative; height: .5rem; margin: .35rem 0; border-radius: .25rem;
  background: var(--line); }
.track i { position: absolute; top: 0; bottom: 0; }
.track .range { background: var(--c0); border-radius: .25rem; }
.track .cut { background: var(--c1); }
.track .dot { width: 3px; margin-left: -1px; top: -.2rem; bottom: -.2rem; background: var(--text); }
.track .mark { border-left: 3px dotted var(--c1); top: -.35rem; bottom: -.35rem; }
.timeline { padding-left: 1.6rem; font-size: .9rem; }
.timeline li { margin: .4rem 0; }
.charts, .cells { display: grid; gap: .7rem; }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.cells { grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; }
.cells.pairs { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.cells figure { padding: .4rem; font-size: .8rem; line-height: 1.3; }
.cells figcaption { font-weight: 400; white-space: pre-line; }
.cells img { width: 100%; display: block; border-radius: .25rem; margin-bottom: .3rem; }
.pixels { image-rendering: pixelated; }
img { max-width: 100%; height: auto; }
svg { width: 100%; height: auto; display: block; }
.wide svg { width: auto; }
.charts figure > svg { overflow: visible; }
.legend { list-style: none; margin: .2rem 0 0; padding: 0; font-size: .85rem;
  display: flex; flex-wrap: wrap; gap: .1rem 1rem; }
.charts:has(details[open]) { align-items: start; }
.hit > path { fill: transparent; stroke: none; }
.hit .tip { visibility: hidden; pointer-events: none; }
.hit:hover .tip { visibility: visible; }
.tip .guide { stroke: var(--weak); stroke-dasharray: 2 2; }
.tip .box { fill: var(--back); stroke: var(--line); }
.tip text { fill: var(--text); }
figure .wide { --back: var(--card); }
figure .note { font-size: .85rem; }
figure details { font-size: .85rem; }
.downloads a { margin-right: .8rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; margin: .5rem 0;
  font-size: .95rem; }
.facts dt { color: var(--weak); }
.facts dd { margin: 0; }
"""

# Shadows at the edges show that there is more of a table: those of the edge scroll with the
# content and cover the fixed ones where it ends.
_TABLES = """\
.wide { overflow-x: auto; background-repeat: no-repeat; background-image:
  linear-gradient(to right, var(--back) 1rem, transparent),
  linear-gradient(to left, var(--back) 1rem, transparent),
  linear-gradient(to right, var(--line), transparent),
  linear-gradient(to left, var(--line), transparent);
  background-position: left, right, left, right;
  background-size: 2.5rem 100%, 2.5rem 100%, .9rem 100%, .9rem 100%;
  background-attachment: local, local, scroll, scroll; }
.tall { max-height: 30rem; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; background: var(--back); }
tr.marked > * { font-weight: 600; background: var(--card); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: nowrap; }
.n { text-align: right; }
th.long, td.long { white-space: normal; min-width: 10rem; }
th .note, th details { font-weight: 400; color: var(--weak); white-space: normal; min-width: 9rem;
  max-width: 34rem; }
th .note { display: block; }
th summary { padding: 0; font-weight: 600; }
thead th { color: var(--weak); font-weight: 600; }
@media (max-width: 34rem) {
  .stack thead { position: absolute; clip-path: inset(50%); }
  .stack, .stack tbody, .stack tr, .stack th, .stack td { display: block; }
  .stack th, .stack td { border: 0; padding: .05rem 0; white-space: normal; text-align: left;
    min-width: 0; }
  .stack tr { border-bottom: 1px solid var(--line); padding: .3rem 0; }
  .stack td::before { content: attr(data-title) ": "; color: var(--weak); }
}
"""

# Everything is visible on paper, on white.
_PRINT = """\
@media print {
  :root { color-scheme: light; }
  nav, .no-print { display: none; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  details::details-content { content-visibility: visible; block-size: auto; }
  summary { color: var(--weak); list-style: none; }
  figure, tr, .tiles > div, pre { break-inside: avoid; }
  h2, h3, figcaption { break-after: avoid; }
  .wide { overflow: visible; max-height: none; background: none; }
  .wide table { font-size: .75rem; }
  th, td { white-space: normal; }
  * { print-color-adjust: exact; }
}
"""

PAGE_STYLE = _COLORS + STYLE + _TEXT + _NAVIGATION + _BLOCKS + _TABLES + ENLARGE_STYLE + _PRINT
