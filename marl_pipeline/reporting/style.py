"""The page's style sheet."""

CSS = """
:root{--ink:#1c2430;--soft:#5a6675;--paper:#f4f6f8;--card:#ffffff;--line:#d5dbe2;--shade:#eef2f7;--good:#11713f;
--bad:#b3261e;--c0:#1560d4;--c1:#d9720a;--c2:#2c8f5a;--c3:#8a4fc7;--c4:#7d8894;--c5:#c2387e;--c6:#0f8b9c;--c7:#a8871a;
--c8:#5e6fd6;--c9:#8f5b3a;--c10:#4fa3e0;--c11:#b0bac4}
@media(prefers-color-scheme:dark){:root{--ink:#e3e8ee;--soft:#9aa7b5;--paper:#10151b;--card:#181f28;--line:#35404d;
--shade:#212b37;--good:#5ccf92;--bad:#ff8a80;--c0:#6aa8ff;--c1:#ffa24d;--c2:#5fcf92;--c3:#bf93f5;--c4:#9aa5b1;
--c5:#f57ab5;--c6:#4cc6d6;--c7:#dcbc4e;--c8:#97a5ff;--c9:#cf9773;--c10:#8accff;--c11:#5b6875}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1160px;margin:0 auto;padding:20px 20px 60px}
header{background:var(--card);border:1px solid var(--line);border-left:8px solid;border-radius:10px;padding:18px 22px}
header.go{border-left-color:var(--good)}header.nogo{border-left-color:var(--bad)}
h1{font-size:1.25rem;margin:.3rem 0 .6rem;font-weight:500;line-height:1.2}
.verdict{font-size:2.6rem;font-weight:800;letter-spacing:.01em;margin-right:.4rem;white-space:nowrap}
.go .verdict{color:var(--good)}.nogo .verdict{color:var(--bad)}
.what{margin:0;color:var(--soft)}header .note{margin:.3rem 0 .6rem;font-size:.9375rem;font-style:italic}
h2{font-size:1.1rem;margin:0 0 .7rem}
ul{margin:.2rem 0 .8rem;padding-left:1.2rem}li{margin:.25rem 0}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:14px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px;display:flex;
flex-direction:column}
.tile b{font-size:1.6rem;line-height:1.3;font-variant-numeric:tabular-nums}.tile span,.tile small{color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 20px;margin:14px 0;
min-width:0}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:14px;align-items:start}
.grid>section{margin:0}section .grid section{border:0;padding:0}
figure{margin:0}figcaption{margin-bottom:.2rem}
svg{width:100%;height:auto;display:block}
.narrow{display:none}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.875rem;color:var(--soft);margin-bottom:.3rem}
.legend i{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.4em}
small,.note{font-size:.875rem;color:var(--soft)}.note{margin:.6rem 0 0}
.scroll{overflow-x:auto;background:linear-gradient(270deg,var(--card),transparent) 100% 0/40px 100% no-repeat local,
linear-gradient(270deg,var(--line),transparent) 100% 0/14px 100% no-repeat}
table{border-collapse:collapse;width:100%;font-size:.9375rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:500}
.n{text-align:right;padding:6px 0 6px 10px;white-space:nowrap}
th.n{white-space:normal}
.metrics td:nth-child(2),.strategies tbody tr:first-child td{font-weight:700}
.strategies td:nth-child(2),.strategies th:nth-child(2){text-align:left}
.metrics td:first-child,.metrics th:first-child,.strategies td:first-child,.strategies th:first-child
{position:sticky;left:0;background:var(--card)}
.gates tr:not(.words) td{border-bottom:0}.words td{padding-top:0;color:var(--soft);white-space:normal}
.pass,.fail{font-size:.8125rem;font-weight:700;padding:1px 8px;border-radius:99px;border:1px solid}
.pass{color:var(--good)}.fail{color:var(--bad)}
.bar{width:40%}.bar i{display:block;height:.8em;margin-top:.35em;background:var(--c0);border-radius:2px}
.sum td{font-weight:700;border-bottom:0}
code{font:.8125rem ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
@media(max-width:760px){main{padding:10px 10px 40px}header,section{padding:14px}.tiles{grid-template-columns:1fr 1fr}
.grid{grid-template-columns:minmax(0,1fr)}.narrow{display:block}.wide{display:none}.verdict{font-size:2.2rem}
.tile{padding:10px 12px}.tile b{font-size:1.35rem}table{font-size:.8125rem}
.n{padding-left:6px}th,td{padding-right:6px}}
@media print{body{background:#fff}section,header,.tile{break-inside:avoid}}
"""
