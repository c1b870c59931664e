"""The page of indicators: one template of HTML; styles and switch are the report's."""

# ruff: noqa: E501  (lines of HTML)

from __future__ import annotations

from qala._report_page import SCRIPT, STYLE

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
<p class="lead">{{ t("indicator.page.lead") }}</p>
{% if synthetic %}
<p class="mark">{{ t("figure.synthetic") }}</p>
{% endif %}
</header>
<main>
{% if picture %}
<section>
<h2>{{ t("report.map") }}</h2>
{% for code, uri, name in picture %}
<img{% if code %} lang="{{ code }}"{% endif %} src="{{ uri }}" alt="{{ name }}">
{% endfor %}
</section>
{% endif %}
<section>
<h2>{{ t("indicator.all_units") }}</h2>
<div class="scroll"><table>
<thead><tr>{% for key in ("title", "epoch", "value") %}<th{% if key == "epoch" %} class="t"{% endif %}>{{ column(key) }}</th>{% endfor %}<th class="t">{{ column("method") }}</th></tr></thead>
<tbody>
{% for row in whole %}
<tr><td>{{ row.title }}</td><td class="t">{{ row.epoch }}</td><td>{{ row.value }}</td><td class="t">{{ row.method }}{% if row.note %}<span class="small">{{ row.note }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody>
</table></div>
</section>
{% for table in tables %}
<section>
<h2>{{ table.title }}</h2>
<div class="scroll"><table>
<thead><tr>{% for words in table.head %}<th>{{ words }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr><td>{{ row.name }}</td>{% for value in row.cells %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% if table.more %}
<p class="small">{{ table.more }}</p>
{% endif %}
</section>
{% endfor %}
{% if missing %}
<section>
<h2>{{ t("indicator.page.missing") }}</h2>
<ul>
{% for note, names in missing %}
<li>{{ note }}<span class="small">{{ names }}</span></li>
{% endfor %}
</ul>
</section>
{% endif %}
<section>
<h2>{{ t("report.sources") }}</h2>
<ul>
{% for source in sources %}
<li>{{ source }}</li>
{% else %}
<li>{{ t("report.no_sources") }}</li>
{% endfor %}
</ul>
{% if inputs %}
<details><summary>{{ t("report.provenance") }}</summary>
<div class="scroll"><table>
<thead><tr><th>{{ t("report.input") }}</th><th class="t">{{ t("report.hash") }}</th></tr></thead>
<tbody>
{% for name, hash in inputs %}
<tr><td>{{ name }}</td><td class="t"><code>{{ hash }}</code></td></tr>
{% endfor %}
</tbody>
</table></div></details>
{% endif %}
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
