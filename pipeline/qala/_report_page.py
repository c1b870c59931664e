"""The page of :mod:`qala.report`: one template of HTML, its styles and the language switch."""

# ruff: noqa: E501  (lines of HTML)

from __future__ import annotations

#: styles of every page of the project; texts in a language stand in ``span[lang]``
STYLE = """:root { color-scheme: light; --ink: #1f2933; --muted: #5b6b7b; --line: #d9dfe5; --red: #c8102e; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 17px/1.5 system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
main, header { max-width: 62rem; margin: 0 auto; padding: 0 1.1rem; }
html[data-lang=kk] span[lang]:not([lang=kk]), html[data-lang=kk] img[lang]:not([lang=kk]),
html[data-lang=ru] span[lang]:not([lang=ru]), html[data-lang=ru] img[lang]:not([lang=ru]),
html[data-lang=en] span[lang]:not([lang=en]), html[data-lang=en] img[lang]:not([lang=en]) { display: none; }
nav { display: flex; gap: .4rem; justify-content: flex-end; padding: .9rem 0 0; }
button { font: inherit; font-size: .9rem; min-height: 2.4rem; padding: .2rem .8rem; border: 1px solid var(--line); border-radius: .3rem; background: #fff; color: var(--ink); cursor: pointer; }
button[aria-pressed=true] { background: var(--ink); border-color: var(--ink); color: #fff; }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.2; margin: .8rem 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; }
.lead { color: var(--muted); max-width: 46rem; margin: 0; }
.mark { display: inline-block; margin: .9rem 0 0; padding: .3rem .7rem; background: #b45309; color: #fff; font-weight: 600; border-radius: .3rem; }
.answer { display: flex; flex-wrap: wrap; gap: 1.2rem 3.5rem; align-items: flex-start; margin: 1.8rem 0 .6rem; padding: 1.2rem 0; border: solid var(--line); border-width: 1px 0; }
.answer div { min-width: 12rem; }
.figure { font-size: clamp(2.4rem, 9vw, 3.6rem); font-weight: 700; line-height: 1.1; display: block; font-variant-numeric: tabular-nums; }
.functional .figure { color: var(--red); }
.small { color: var(--muted); font-size: .9rem; display: block; }
.verdict { font-size: 1.15rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; vertical-align: bottom; color: var(--muted); font-size: .84rem; line-height: 1.3; }
th:first-child, td:first-child, th.t, td.t { text-align: left; }
tr.whole td { font-weight: 700; background: #eef1f4; }
img { display: block; width: 100%; height: auto; margin: 0 0 1.4rem; border: 1px solid var(--line); }
ol, ul { padding-left: 1.3rem; max-width: 46rem; }
li { margin: .35rem 0; }
code, pre { font: .82rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; background: #f5f7f9; padding: .8rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; }
footer { height: 3rem; }
@media print {
  nav, details { display: none; }
  body { font-size: 10.5pt; }
  h2 { break-after: avoid; }
  img, tr, .answer { break-inside: avoid; }
  .scroll { overflow: visible; }
}
"""

#: the buttons that choose a language; wants ``titles``, a JSON text of language to title
SCRIPT = """(function () {
  var titles = {{ titles|safe }}, root = document.documentElement;
  function show(code) {
    root.setAttribute("data-lang", code);
    root.lang = code;
    document.title = titles[code];
    document.querySelectorAll("button[data-to]").forEach(function (b) {
      b.setAttribute("aria-pressed", String(b.getAttribute("data-to") === code));
    });
  }
  document.querySelectorAll("button[data-to]").forEach(function (b) {
    b.addEventListener("click", function () {
      show(b.getAttribute("data-to"));
      try { history.replaceState(null, "", "#" + b.getAttribute("data-to")); } catch (e) { /* a file:// page of a strict browser */ }
    });
  });
  var wanted = location.hash.slice(1);
  if (titles.hasOwnProperty(wanted)) { show(wanted); }
})();
"""

PAGE = (
    """<!DOCTYPE html>
<html lang="{{ lang }}" data-lang="{{ lang }}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{{ plain_title }}</title>
<style>
"""
    + STYLE
    + """</style>
</head>
<body>
<header>
<nav>
{% for code, name in languages %}
<button type="button" data-to="{{ code }}" lang="{{ code }}" aria-pressed="{{ 'true' if code == lang else 'false' }}">{{ name }}</button>
{% endfor %}
</nav>
<h1>{{ title }}</h1>
<p class="lead">{{ t("report.question") }}</p>
{% if synthetic %}
<p class="mark">{{ t("figure.synthetic") }}</p>
{% endif %}
</header>
<main>
{% if has_headline %}
<section class="answer">
{% if has_official %}
<div><span class="small">{{ t("report.official") }}</span><span class="figure">{{ official }}</span><span class="small">{{ t("report.by_statistics") }}</span></div>
{% endif %}
<div class="functional"><span class="small">{{ t("report.functional") }}</span><span class="figure">{{ functional }}</span><span class="small">{{ t("report.by_degurba") }}</span><span class="small">{{ of_people }}</span><span class="small">{{ in_centres }}</span></div>
</section>
<p class="verdict">{{ verdict }}</p>
{% endif %}
{% if pictures %}
<section>
<h2>{{ t("report.map") }}</h2>
{% for picture in pictures %}
{% for code, uri, name in picture %}
<img{% if code %} lang="{{ code }}"{% endif %} src="{{ uri }}" alt="{{ name }}">
{% endfor %}
{% endfor %}
</section>
{% endif %}
{% for table in tables %}
<section>
<h2>{{ table.title }}</h2>
<div class="scroll"><table>
<thead><tr>{% for words in table.head %}<th{% if not loop.first and table.text[loop.index0 - 1] %} class="t"{% endif %}>{{ words }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if row.whole %} class="whole"{% endif %}><td>{{ row.name }}</td>{% for value in row.cells %}<td{% if table.text[loop.index0] %} class="t"{% endif %}>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% if table.more %}
<p class="small">{{ table.more }}</p>
{% endif %}
</section>
{% endfor %}
<section>
<h2>{{ t("report.method") }}</h2>
<ol>
{% for sentence in method %}
<li>{{ sentence }}</li>
{% endfor %}
</ol>
</section>
<section>
<h2>{{ t("report.trust") }}</h2>
<ul>
{% if synthetic %}
<li><strong>{{ t("report.trust.synthetic") }}</strong></li>
{% endif %}
{% if span %}
<li>{{ span }}</li>
{% endif %}
<li>{{ t("report.trust.grid") }}</li>
<li>{{ t("report.trust.official") }}</li>
</ul>
</section>
<section>
<h2>{{ t("report.sources") }}</h2>
<ul>
{% for source in sources %}
<li>{% if source.url %}<a href="{{ source.url }}" rel="noreferrer">{{ source.title }}</a>{% else %}{{ source.title }}{% endif %}{% if source.licence %} · {{ source.licence }}{% endif %}{% if source.citation %}<span class="small">{{ source.citation }}</span>{% endif %}</li>
{% else %}
<li>{{ t("report.no_sources") }}</li>
{% endfor %}
</ul>
</section>
<section>
<h2>{{ t("report.provenance") }}</h2>
{% if inputs %}
<div class="scroll"><table>
<thead><tr><th>{{ t("report.input") }}</th><th class="t">{{ t("report.hash") }}</th></tr></thead>
<tbody>
{% for name, hash in inputs %}
<tr><td>{{ name }}</td><td class="t"><code>{{ hash }}</code></td></tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
<details><summary>{{ t("report.record") }}</summary><pre>{{ record }}</pre></details>
</section>
</main>
<footer></footer>
<script>
"""
    + SCRIPT
    + """</script>
</body>
</html>
"""
)
