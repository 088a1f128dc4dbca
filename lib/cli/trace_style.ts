/** The look of a trace's page (trace_page.ts), by day and by night. Colours as numbers, so that they can be made fainter. */
export const traceStyle = `
:root { --paper: 255 255 255; --ink: 34 34 34; --soft: 102 102 102; --line: 221 221 221; --gone: 240 240 240; --prompt: 0 98 168; --made: 204 85 0; --panel: 250 250 250; }
@media (prefers-color-scheme: dark) {
	:root { --paper: 22 24 28; --ink: 226 226 226; --soft: 150 154 160; --line: 58 62 68; --gone: 36 39 44; --prompt: 92 172 238; --made: 240 148 68; --panel: 28 31 36; }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; color: rgb(var(--ink)); background: rgb(var(--paper)); max-width: 82rem; margin: 2rem auto 4rem; padding: 0 1.25rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid rgb(var(--line)); padding-bottom: .3rem; }
.lead { color: rgb(var(--soft)); max-width: 60rem; margin: 0 0 1rem; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 1.8rem; margin: 0 0 1.2rem; }
.facts dt { font-size: .78rem; color: rgb(var(--soft)); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: .7rem; max-height: 15rem; overflow: auto; }
nav[hidden] { display: none; }
button { font: inherit; color: inherit; background: rgb(var(--panel)); border: 1px solid rgb(var(--line)); border-radius: 6px; cursor: pointer; }
button:focus-visible, #scroller:focus-visible { outline: 2px solid rgb(var(--prompt)); outline-offset: 1px; }
nav button { padding: .3rem .3rem .1rem; font-size: .78rem; line-height: 1.5; }
nav button canvas { display: block; width: 76px; height: 76px; }
nav button[aria-pressed='true'] { border-color: rgb(var(--prompt)); box-shadow: 0 0 0 1px rgb(var(--prompt)); font-weight: 600; }
.bar { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: center; gap: .4rem 1.5rem; margin-bottom: .5rem; }
.bar p { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; font-size: .86rem; color: rgb(var(--soft)); }
.legend i { display: inline-block; width: .85em; height: .85em; border-radius: 2px; margin-right: .4em; vertical-align: -.08em; }
.legend .prompt { background: rgb(var(--prompt)); }
.legend .made { background: rgb(var(--made)); }
.legend .gone { background: rgb(var(--gone)); border: 1px solid rgb(var(--line)); }
.zoom { display: flex; gap: .3rem; }
.zoom button { min-width: 2.2rem; padding: .1rem .6rem; }
#scroller { position: relative; overflow: auto; border: 1px solid rgb(var(--line)); border-radius: 6px; max-height: 82vh; }
#area { position: relative; }
#picture { position: sticky; top: 0; left: 0; display: block; }
#text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; border: 1px solid rgb(var(--line)); border-radius: 6px; padding: .7rem 1rem; }
#text span { unicode-bidi: isolate; border-radius: 3px; padding: .12em 0; }
#text .prompt[data-p] { background: rgb(var(--prompt) / calc(var(--share) * .55)); }
#text .made[data-p] { background: rgb(var(--made) / calc(var(--share) * .55)); }
#text small { color: rgb(var(--soft)); font-size: .72em; border: 1px solid rgb(var(--line)); border-radius: 3px; padding: 0 .2em; }
#text span.here { outline: 2px solid rgb(var(--ink)); }
table { border-collapse: collapse; font-size: .95rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem; border-bottom: 1px solid rgb(var(--line)); text-align: right; vertical-align: bottom; }
th { font-weight: 600; max-width: 12rem; }
th:first-child, td:first-child { text-align: left; }
#tip { position: fixed; z-index: 1; pointer-events: none; max-width: 24rem; background: rgb(var(--panel)); border: 1px solid rgb(var(--line)); border-radius: 6px; padding: .4rem .7rem; font-size: .86rem; line-height: 1.45; box-shadow: 0 3px 12px rgb(0 0 0 / .22); white-space: pre-line; }
#tip[hidden] { display: none; }
`;
