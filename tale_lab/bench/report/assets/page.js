"use strict";
(() => {
  const report = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const PAGE = 50;
  const PLACES = ["top right", "bottom right", "top left", "bottom left"];
  const [HEIGHT, MARGIN, BOTTOM, TOP] = [430, { l: 60, r: 24, t: 16, b: 54 }, -0.02, 1.06];
  const VERDICTS = { correct: "right", wrong: "wrong", unreadable: "no answer in it", error: "error" };
  let section = report.sections[0];
  let spending = null;
  let shown = new Set();
  let most = PAGE;

  // Texts only ever enter the page as text nodes: answers may hold markup.
  function node(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null).map((child) => (child.nodeType ? child : String(child))));
    return made;
  }
  const fill = (id, ...children) => at(id).replaceChildren(...children);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const percent = (share) => `${(100 * share).toFixed(0)}%`;
  const badge = (kind, words) => node("span", { class: `badge ${kind}` }, words);

  function table(id, header, rows, { sortable = false, cell = null, words = [] } = {}) {
    const body = node("tbody");
    const draw = (lines) => body.replaceChildren(...lines.map((line) => node("tr", {}, ...line.map((text, column) => {
      const made = node("td", words.includes(header[column]) ? { class: "words" } : {});
      const inner = cell ? cell(made, header[column], text) : null;
      made.append(inner === null ? text : inner);
      return made;
    }))));
    const heads = header.map((name, column) => {
      const head = node("th", { scope: "col", class: words.includes(name) ? "words" : null });
      if (!sortable) { head.append(name); return head; }
      const button = node("button", { type: "button" }, name);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        draw([...rows].sort((one, other) => (up ? 1 : -1) * compare(one[column], other[column])));
      });
      head.append(button);
      return head;
    });
    draw(rows);
    fill(id, node("thead", {}, node("tr", {}, ...heads)), body);
  }

  function compare(one, other) {
    const [left, right] = [one, other].map((text) => parseFloat(text.replace(/[~$,+]/g, "")) * (/ ms$/.test(text) ? 0.001 : 1));
    if (Number.isNaN(left) || Number.isNaN(right)) {
      return Number.isNaN(left) && Number.isNaN(right) ? one.localeCompare(other) : Number.isNaN(left) ? -1 : 1;
    }
    return left - right;
  }

  function figureCell(made, name, text) {
    if (name === "no worse" && text !== "-") return badge({ yes: "yes", no: "no" }[text] || "unsure", text);
    if (name === "saved" && text.includes("%")) {
      const width = Math.max(0, Math.min(100, parseFloat(text.replace("~", ""))));
      made.style.background = `linear-gradient(to left, var(--bar) ${width}%, transparent ${width}%)`;
    }
    return null;
  }

  function drawFigures() {
    at("title").textContent = section.title;
    at("conditions").textContent = section.conditions;
    fill("remarks", ...section.remarks.map((text) => node("p", { class: "remark" }, text)));
    table("figures", section.header, section.rows, { sortable: true, cell: figureCell, words: ["events"] });
    fill("sentences", ...Object.entries(section.sentences).flatMap(([label, text]) => [node("dt", {}, label), node("dd", {}, text)]));
    at("published-section").hidden = section.published.rows.length === 0;
    table("published", section.published.header, section.published.rows, { words: ["model", "from"] });
    fill("notes", ...report.notes.map((text) => node("li", {}, text)));
    at("comparisons-section").hidden = report.comparisons.length === 0;
    fill("comparisons", ...report.comparisons.map(([head, ...lines]) => node("div", {}, node("p", {}, node("strong", {}, head)), node("ul", {}, ...lines.map((line) => node("li", {}, line))))));
  }

  const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

  function layout(more) {
    const axis = { gridcolor: color("line"), zerolinecolor: color("line"), linecolor: color("line"), automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: color("ink"), size: 13 },
      margin: MARGIN, hovermode: "closest", showlegend: false,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("quiet"), activecolor: color("accent") },
      hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink") } },
      ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
    };
  }

  function points(list, name, symbol) {
    const interval = (low, high, value) => ({
      type: "data", symmetric: false, thickness: 1, width: 3, color: color(name),
      array: list.map((one) => one[high] - one[value]), arrayminus: list.map((one) => one[value] - one[low]),
    });
    return {
      type: "scatter", mode: "markers+text", x: list.map((one) => one.spend), y: list.map((one) => one.accuracy),
      error_x: interval("spend_low", "spend_high", "spend"), error_y: interval("low", "high", "accuracy"),
      text: list.map((one) => one.shown), textposition: list.map((one) => one.place), textfont: { color: color("ink"), size: 12 },
      marker: { size: 11, symbol, color: color(name), line: { width: 1, color: color("card") } },
      customdata: list.map((one) => [one.label, one.spend_text, percent(one.accuracy), `${percent(one.low)} to ${percent(one.high)}`]),
      hovertemplate: "<b>%{customdata[0]}</b><br>%{customdata[1]} per question<br>%{customdata[2]} correct (%{customdata[3]})<extra></extra>",
    };
  }

  // A label stands where it covers no point and no other label, or else only shows on hovering.
  function placeLabels(list, right) {
    const width = at("frontier").clientWidth - MARGIN.l - MARGIN.r;
    const height = HEIGHT - MARGIN.t - MARGIN.b;
    const center = (one) => [(one.spend / right) * width, ((TOP - one.accuracy) / (TOP - BOTTOM)) * height];
    const taken = list.map((one) => { const [x, y] = center(one); return [x - 6, y - 6, x + 6, y + 6]; });
    const free = ([left, top, end, low]) => left >= 0 && top >= 0 && end <= width && low <= height
      && !taken.some((box) => left < box[2] && box[0] < end && top < box[3] && box[1] < low);
    for (const one of list) { one.shown = ""; one.place = PLACES[0]; }
    for (const one of list) {
      const [x, y] = center(one);
      const long = 7 * one.label.length;
      for (const place of one.shown ? [] : PLACES) {
        const left = place.endsWith("right") ? x + 7 : x - 7 - long;
        const top = place.startsWith("top") ? y - 21 : y + 7;
        const box = [left, top, left + long, top + 14];
        if (free(box)) { taken.push(box); Object.assign(one, { shown: one.label, place }); break; }
      }
    }
  }

  function drawFrontier() {
    fill("spending", ...(spending ? spending.lines.map((text) => node("li", {}, text)) : []));
    if (!spending) { Plotly.purge(at("frontier")); return; }
    const efficient = spending.points.filter((one) => one.efficient);
    const right = 1.1 * Math.max(...spending.points.map((one) => one.spend_high));
    placeLabels([...efficient, ...spending.points], right);
    const stairs = {
      type: "scatter", mode: "lines", x: efficient.map((one) => one.spend), y: efficient.map((one) => one.accuracy),
      line: { shape: "hv", color: color("accent"), width: 2, dash: "dot" }, hoverinfo: "skip",
    };
    const others = spending.points.filter((one) => !one.efficient);
    Plotly.react(at("frontier"), [stairs, points(others, "quiet", "circle-open"), points(efficient, "accent", "circle")], layout({
      height: HEIGHT, xaxis: { title: { text: `mean ${spending.unit} per question` }, range: [0, right] },
      yaxis: { title: { text: "share of correct answers" }, tickformat: ".0%", range: [BOTTOM, TOP] },
    }), CONFIG);
  }

  function drawTokens() {
    const methods = [...section.methods].reverse();
    Plotly.react(at("tokens"), methods.map((one) => ({
      type: "box", orientation: "h", x: one.tokens, y: one.tokens.map(() => one.label), boxmean: true,
      boxpoints: one.tokens.length <= 300 ? "all" : "outliers", jitter: 0.6, pointpos: 0,
      marker: { color: color("accent"), size: 3.5, opacity: 0.45 }, line: { color: color("accent"), width: 1.3 },
      fillcolor: color("bar"), hoveron: "boxes", hoverinfo: "x",
    })), layout({
      height: 110 + 46 * methods.length,
      xaxis: { title: { text: "output tokens of all calls of an answer" }, rangemode: "tozero" }, yaxis: { type: "category" },
    }), CONFIG);
  }

  function drawPlots() { drawFrontier(); drawTokens(); }

  function verdicts(item) {
    return [...shown].filter((label) => label in item.answers).map((label) => item.answers[label].verdict);
  }

  const OUTCOMES = {
    all: () => true,
    disagree: (item) => new Set(verdicts(item).map((one) => one === "correct")).size > 1,
    right: (item) => verdicts(item).length > 0 && verdicts(item).every((one) => one === "correct"),
    wrong: (item) => verdicts(item).length > 0 && verdicts(item).every((one) => one !== "correct"),
    errors: (item) => verdicts(item).includes("error"),
  };

  function matches(item, words) {
    if (!words.length) return true;
    const text = [item.question, item.reference, ...[...shown].map((label) => item.answers[label]?.text || "")].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  function drawQuestions() {
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = section.items.filter((item) => OUTCOMES[at("outcome").value](item) && matches(item, words));
    const left = section.left_out ? `; ${section.left_out} more are in the results file only, to keep this page small` : "";
    at("count").textContent = `${found.length} of ${section.items.length} questions${left}`;
    fill("questions", ...found.slice(0, most).map(question));
    at("more").hidden = found.length <= most;
  }

  function question(item) {
    const labels = section.labels.filter((label) => shown.has(label) && label in item.answers);
    const dots = labels.map((label) => {
      const words = `${label}: ${VERDICTS[item.answers[label].verdict]}`;
      return node("span", { class: `dot ${item.answers[label].verdict}`, title: words, role: "img", "aria-label": words });
    });
    const body = node("div");
    const made = node("details", {}, node("summary", {}, node("span", { class: "text" }, item.question), node("span", { class: "dots" }, ...dots)), body);
    made.addEventListener("toggle", () => {
      if (!made.open || body.childElementCount) return;
      body.append(
        node("p", { class: "quiet" }, `Reference answer: ${item.reference} · id ${item.id}`),
        node("div", { class: "answers" }, ...labels.map((label) => answer(label, item.answers[label]))),
      );
    });
    return made;
  }

  function answer(label, one) {
    return node("article", { class: "answer" },
      node("div", { class: "row" }, node("h3", {}, label), badge(one.verdict, VERDICTS[one.verdict])),
      node("p", { class: "quiet" }, one.facts),
      node("pre", {}, one.text));
  }

  function drawChips() {
    fill("shown-methods", ...section.labels.map((label) => {
      const box = node("input", { type: "checkbox" });
      box.checked = shown.has(label);
      box.addEventListener("change", () => {
        if (box.checked) shown.add(label); else shown.delete(label);
        drawQuestions();
      });
      return node("label", {}, box, ` ${label}`);
    }));
  }

  function drawMeasures() {
    spending = section.spending[0] || null;
    fill("measure", ...section.spending.map((one, number) => node("option", { value: number }, one.unit)));
  }

  function choose(number) {
    section = report.sections[number];
    shown = new Set(section.labels);
    most = PAGE;
    drawFigures();
    drawMeasures();
    drawPlots();
    drawChips();
    drawQuestions();
  }

  fill("section", ...report.sections.map((one, number) => node("option", { value: number }, one.title)));
  at("chooser").hidden = report.sections.length < 2;
  at("section").addEventListener("change", (event) => choose(Number(event.target.value)));
  at("measure").addEventListener("change", (event) => { spending = section.spending[Number(event.target.value)]; drawFrontier(); });
  at("outcome").addEventListener("change", () => { most = PAGE; drawQuestions(); });
  at("search").addEventListener("input", () => { most = PAGE; drawQuestions(); });
  at("more").addEventListener("click", () => { most += PAGE; drawQuestions(); });
  let drawnWidth = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== drawnWidth) { drawnWidth = innerWidth; drawFrontier(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlots);
  choose(0);
})();
