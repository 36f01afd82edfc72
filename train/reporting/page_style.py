"""The style sheet of all pages: report, comparison, inspection."""

from train.reporting.charts.palette import DARK, LIGHT, STYLE


def _variables(palette: dict[str, str]) -> str:
    return ":root { " + " ".join(f"--{name}: {color};" for name, color in palette.items()) + " }"


PAGE_STYLE = (
    f"""
:root {{ color-scheme: light dark; }}
{_variables(LIGHT)}
@media (prefers-color-scheme: dark) {{ {_variables(DARK)} }}
{STYLE}"""
    + """\
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .2rem 0; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0; }
.weak { color: var(--weak); }
.tiles, .charts, .cells { display: grid; gap: .7rem; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.cells { grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); }
.tiles > div, figure { background: var(--card); border-radius: .5rem; padding: .6rem .7rem; }
.tiles b { display: block; font-size: 1.25rem; line-height: 1.3; }
.tiles span { color: var(--weak); font-size: .85rem; }
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
.legend { list-style: none; margin: .2rem 0 0; padding: 0; font-size: .85rem;
  display: flex; flex-wrap: wrap; gap: .1rem 1rem; }
.swatch { display: inline-block; width: 1.2rem; border-top: 3px solid; vertical-align: middle;
  margin-right: .35rem; }
.wide { overflow-x: auto; }
.tall { max-height: 30rem; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; background: var(--back); }
tr.marked > * { font-weight: 600; background: var(--card); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: nowrap; }
td.long { white-space: normal; min-width: 10rem; }
th .note { display: block; font-weight: 400; color: var(--weak); white-space: normal;
  min-width: 9rem; max-width: 34rem; }
thead th { color: var(--weak); font-weight: 600; }
pre { background: var(--card); padding: .6rem .7rem; border-radius: .5rem; white-space: pre-wrap;
  margin: .4rem 0; }
code, pre { font: .9em/1.5 ui-monospace, monospace; }
summary { cursor: pointer; color: var(--link); padding: .3rem 0; }
"""
)
