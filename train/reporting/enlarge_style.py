"""Style of windows over the page, and of what opens in them; part of that of all pages."""

# Only open windows have a layout of their own; old browsers that know none never show them.
ENLARGE_STYLE = """\
.window { margin: auto; border: 1px solid var(--line); border-radius: .5rem; padding: 0;
  background: var(--back); color: var(--text); max-width: 96vw; max-height: 94vh;
  overflow: hidden; }
.window:popover-open { display: flex; flex-direction: column; }
.window::backdrop { background: rgb(0 0 0 / .6); }
@supports not selector(:popover-open) { .window, .opens { display: none; } }
.window > header { display: flex; gap: 1rem; justify-content: space-between; align-items: start;
  padding: .5rem .8rem; background: var(--card); border-bottom: 1px solid var(--line); }
.window > header span { white-space: pre-line; overflow-wrap: anywhere; max-height: 30vh;
  overflow: auto; }
.window > .inside { overflow: auto; }
button { font: inherit; color: var(--link); background: var(--back);
  border: 1px solid var(--line); border-radius: .3rem; padding: .2rem .7rem; cursor: pointer; }
button.picture { display: block; width: 100%; padding: 0; border: 0; background: none;
  cursor: zoom-in; }
.inside:focus-visible, button:focus-visible { outline: 2px solid var(--link);
  outline-offset: -2px; }
@media print { .window, .opens { display: none; } }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start; }
.beside > div { min-width: 0; max-width: 100%; }
.beside p { max-width: 36rem; }
.large { margin-top: .7rem; }
.large .charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); }
.pictures { display: grid; gap: .7rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); }
.pictures.single { grid-template-columns: repeat(auto-fill, minmax(min(100%, 8rem), 1fr)); }
.pictures.triple { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.pictures.triple button svg { max-height: 16rem; }
.pictures.triple { align-items: start; }
.triple .pair svg { max-height: 70vh; }
.triple .pair figure { width: max(min(92vw, 20rem), min(64vh, 30vw)); }
.swatch { display: inline-block; width: .9rem; height: .9rem; margin-right: .35rem;
  border: 1px solid var(--line); border-radius: .2rem; vertical-align: -.1rem; }
.pictures > figure { padding: .5rem; font-size: .85rem; line-height: 1.35; break-inside: avoid; }
.pictures > figure > figcaption { font-weight: 400; margin-top: .3rem; }
.pictures > figure > figcaption span { display: block; overflow-wrap: anywhere; }
.pictures > figure > figcaption span:last-child { color: var(--weak); }
.pair { display: flex; flex-wrap: wrap; gap: .6rem; padding: .6rem; justify-content: center; }
.pair figure { width: min(92vw, 64vh, 36rem); padding: .4rem; }
.heat-key { padding: 0 .6rem .4rem; }
.heat-key svg { width: 16rem; max-width: 100%; }
.zoom { display: grid; grid-template-columns: auto auto; width: max-content;
  padding: 0 .8rem .8rem 0; }
.zoom > * { background: var(--back); }
.zoom > .top { position: sticky; top: 0; z-index: 1; }
.zoom > .left { position: sticky; left: 0; }
.zoom > .top.left { z-index: 2; font-size: .75rem; color: var(--weak); align-self: stretch;
  padding-left: .8rem; }
"""
