"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, under = document) => [...under.querySelectorAll(selector)];
  const read = (id) => JSON.parse($(id).textContent);
  const pictures = read("pictures");
  const charts = read("charts");

  // ---- pictures: each is in the file once, and shown wherever it is named
  for (const img of all("img[data-source]")) img.src = pictures[img.dataset.source];

  // ---- parts: the plain pipeline has no switch, so it cannot be hidden
  for (const box of all("[data-show]")) {
    box.addEventListener("change", () => {
      document.body.classList.toggle(`without-${box.dataset.show}`, !box.checked);
      drawAll();
    });
  }
  const hidden = (part) => document.body.classList.contains(`without-${part}`);

  // ---- sorting: groups of equal cost move as one, the rival stays the last row of its group
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell && cell.dataset.sort !== undefined ? Number(cell.dataset.sort) : null;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null); // gaps last, either way
    return sign * (a - b);
  };
  function sort(table, column, ascending) {
    const sign = ascending ? 1 : -1;
    const best = (body) => {
      const known = all("tr.method, tr.rival", body).map((r) => valueOf(r, column)).filter((v) => v !== null);
      return known.length ? (ascending ? Math.min(...known) : Math.max(...known)) : null;
    };
    for (const body of table.tBodies) {
      const rows = all("tr.method", body);
      rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column), sign));
      body.append(...rows, ...all("tr.rival", body));
    }
    const place = { top: 0, "": 1, bottom: 2 };
    const bodies = [...table.tBodies].map((body) => ({ body, pin: place[body.dataset.pinned], best: best(body) }));
    bodies.sort((a, b) => a.pin - b.pin || (a.pin === 1 ? compare(a.best, b.best, sign) : 0));
    table.append(...bodies.map((b) => b.body));
  }
  for (const button of all("table.methods thead button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const table = button.closest("table");
      const first = button.dataset.better === "more" ? "descending" : "ascending";
      const second = first === "descending" ? "ascending" : "descending";
      const next = head.getAttribute("aria-sort") === first ? second : first;
      for (const th of all("th[aria-sort]", table)) th.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", next);
      sort(table, Number(button.dataset.column), next === "ascending");
    });
  }

  // ---- charts
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const round = (v) => (v === null ? "–" : Math.abs(v) >= 100 ? v.toFixed(0) : Math.abs(v) >= 10 ? v.toFixed(1) : v.toFixed(3));
  const si = (v) => (v >= 1e12 ? `${(v / 1e12).toFixed(2)} T` : v >= 1e9 ? `${(v / 1e9).toFixed(2)} G` : `${(v / 1e6).toFixed(1)} M`);
  const SYMBOLS = { better: "triangle-up", same: "circle-open", worse: "triangle-down-open", unknown: "diamond-open" };
  const SAID = { better: "beats fewer steps", same: "no difference to fewer steps", worse: "loses to fewer steps", unknown: "not compared" };
  const COSTS = { macs: { title: "MACs", show: si, format: "~s" }, seconds: { title: "seconds", show: (v) => `${v.toFixed(2)} s`, format: "" } };
  const narrow = () => window.innerWidth < 640;

  function layout(extra) {
    const axis = { gridcolor: colour("rule"), linecolor: colour("rule"), zeroline: false, automargin: true, fixedrange: narrow() };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("ink"), family: "system-ui, sans-serif", size: 12 },
      margin: { l: 52, r: 12, t: 12, b: 44 }, hovermode: "closest",
      hoverlabel: { align: "left", bgcolor: colour("panel"), bordercolor: colour("rule"), font: { color: colour("ink") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("soft"), activecolor: colour("link") },
      ...extra,
      xaxis: { ...axis, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis },
    };
  }
  // Named one by one, so that no button of plotly's can ask a server.
  const settings = { responsive: true, displaylogo: false, plotlyServerURL: "", modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  const TICKS = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];

  function points(list, cost, measure, name, tone, more) {
    const shown = list.filter((p) => p[cost] !== null && p.values[measure]);
    const of = shown.map((p) => p.values[measure]);
    const arm = (end) => of.map((v) => (v[end] === null ? 0 : Math.abs(v[end] - v.mean)));
    return {
      type: "scatter", name, x: shown.map((p) => p[cost]), y: of.map((v) => v.mean),
      error_y: { type: "data", symmetric: false, array: arm("high"), arrayminus: arm("low"), thickness: 1, width: 3, color: tone },
      hovertext: shown.map((p, i) => {
        const range = of[i].low === null ? "" : ` (${round(of[i].low)} to ${round(of[i].high)})`;
        const verdict = p.part === "baseline" ? "" : `<br>${SAID[p.verdict]}`;
        return `<b>${escaped(p.label)}</b><br>${round(of[i].mean)}${range}<br>${COSTS[cost].show(p[cost])}${verdict}`;
      }),
      hovertemplate: "%{hovertext}<extra></extra>",
      ...more(shown),
    };
  }
  function drawPareto(div) {
    const { pareto } = charts[div.dataset.model];
    const select = document.querySelector(`select[data-pareto="${div.dataset.model}"]`);
    const measure = pareto.measures.find((m) => m.key === select.value);
    const cost = div.dataset.cost;
    const traces = [
      points(pareto.line, cost, measure.key, "fewer steps", colour("baseline"), (shown) => ({
        mode: "lines+markers+text", line: { color: colour("baseline"), width: 2 }, marker: { color: colour("baseline"), size: 7 },
        text: shown.map((p) => String(p.steps ?? "")), textposition: "bottom right", textfont: { size: 11, color: colour("soft") },
      })),
    ];
    const names = { ours: "ours", related: "others", figure: "figures" };
    for (const [part, name] of Object.entries(names)) {
      const list = pareto.points.filter((p) => p.part === part);
      if (!list.length || hidden(part)) continue;
      // The legend's sign is a plain dot: shapes are verdicts, colours are parts.
      traces.push({ type: "scatter", name, x: [null], y: [null], mode: "markers", legendgroup: part, marker: { color: colour(part), size: 10 } });
      traces.push(points(list, cost, measure.key, name, colour(part), (shown) => ({
        mode: "markers", legendgroup: part, showlegend: false,
        marker: { color: colour(part), size: 10, symbol: shown.map((p) => SYMBOLS[p.verdict]), line: { width: 1.5, color: colour(part) } },
      })));
    }
    Plotly.react(div, traces, layout({
      xaxis: { title: { text: COSTS[cost].title }, tickformat: COSTS[cost].format },
      yaxis: { title: { text: narrow() ? "" : measure.title }, autorange: measure.better === "less" ? "reversed" : true },
      legend: { orientation: "h", y: -0.2, yanchor: "top" },
    }), settings);
  }
  function drawCurves(div) {
    const { curves } = charts[div.dataset.model];
    const hue = (i) => `hsl(${Math.round(215 + (150 * i) / Math.max(1, curves.length - 1)) % 360} 70% ${matchMedia("(prefers-color-scheme: dark)").matches ? 66 : 44}%)`;
    const traces = curves.map((c, i) => ({
      type: "scatter", mode: "lines+markers", name: c.name, x: c.values.map((_, step) => step), y: c.values,
      line: { color: hue(i), width: 1.5 }, marker: { size: 4, color: hue(i) },
      hovertemplate: `<b>${escaped(c.site)}</b><br>step %{x}: %{y:.2%}<extra></extra>`,
    }));
    Plotly.react(div, traces, layout({
      xaxis: { title: { text: "step" } },
      yaxis: { type: "log", tickformat: "~%", tickvals: TICKS, title: { text: narrow() ? "" : "relative change" } },
      showlegend: curves.length > 1,
      legend: narrow() ? { orientation: "h", y: -0.2, yanchor: "top", font: { size: 10 } } : { font: { size: 11 } },
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0.01, y1: 0.01, line: { color: colour("soft"), width: 1, dash: "dot" } }],
    }), settings);
  }
  const drawers = { pareto: drawPareto, curves: drawCurves };
  const draw = (div) => drawers[div.dataset.chart](div);
  const drawAll = () => all("[data-chart]").forEach(draw);
  for (const select of all("select[data-pareto]")) {
    select.addEventListener("change", () => all(`[data-chart="pareto"][data-model="${select.dataset.pareto}"]`).forEach(draw));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();

  // ---- the comparison
  const dialog = $("compare");
  const stage = $("stage");
  const slide = $("slide");
  let tile = null;

  const reference = () => $("compare-with").value;
  const sources = () => ({ method: pictures[tile.dataset.picture], reference: pictures[tile.dataset[reference()]] });

  function move(percent) {
    slide.value = String(Math.min(100, Math.max(0, percent)));
    $("clip").style.width = `${slide.value}%`;
    $("handle").style.left = `${slide.value}%`;
  }
  function fit(width, height, room) {
    const scale = Math.min(room / width, (window.innerHeight * 0.52) / height, 512 / Math.max(width, height, 1));
    const whole = scale > 1 ? Math.floor(scale) : scale; // whole pixels stay square
    return [Math.round(width * whole), Math.round(height * whole)];
  }
  function size(element, [width, height]) {
    element.style.width = `${width}px`;
    element.style.height = `${height}px`;
  }
  function load(source) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = reject;
      image.src = source;
    });
  }
  async function show() {
    const wanted = tile;
    const source = sources();
    const label = tile.dataset.label;
    const [method, other] = await Promise.all([load(source.method), load(source.reference)]);
    if (wanted !== tile) return;
    const { naturalWidth: width, naturalHeight: height } = method;
    const tiny = Math.max(width, height) <= 128;
    const room = stage.clientWidth - 24;
    const box = fit(width, height, room);
    size($("frame"), box);
    for (const [id, from] of [["under", source.method], ["over", source.reference]]) {
      $(id).src = from;
      size($(id), box);
    }
    const half = fit(width, height, (room - 12) / 2);
    for (const [id, from] of [["side-method", source.method], ["side-reference", source.reference]]) {
      $(id).src = from;
      size($(id), half);
    }
    size($("difference"), box);
    for (const image of all("img, canvas", stage)) image.classList.toggle("tiny", tiny);
    for (const tag of all("[data-name]", stage)) tag.textContent = tag.dataset.name === "method" ? label : reference();
    $("side-method").alt = $("under").alt = `${label}: ${tile.dataset.prompt}`;
    $("side-reference").alt = $("over").alt = `${reference()}: ${tile.dataset.prompt}`;
    words(difference(method, other));
  }
  function pixels(image, width, height) {
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0, width, height);
    return pen.getImageData(0, 0, width, height).data;
  }
  function difference(method, other) {
    const { naturalWidth: width, naturalHeight: height } = method;
    const factor = 2 ** Number($("gain").value);
    $("gain-shown").textContent = `${factor}×`;
    const [a, b] = [pixels(method, width, height), pixels(other, width, height)];
    const map = new ImageData(width, height);
    let total = 0, largest = 0;
    for (let i = 0; i < a.length; i += 1) {
      if (i % 4 === 3) { map.data[i] = 255; continue; }
      const apart = Math.abs(a[i] - b[i]);
      total += apart;
      largest = Math.max(largest, apart);
      map.data[i] = apart * factor; // clamped by its type
    }
    const canvas = $("difference");
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(map, 0, 0);
    return { mean: total / (width * height * 3), largest };
  }
  function words({ mean, largest }) {
    const values = JSON.parse(tile.dataset.values);
    const psnr = values[`${reference()}.psnr`];
    const apart = largest === 0 ? `Identical to the ${reference()} picture.`
      : `Differs from the ${reference()} picture by ${mean.toFixed(1)} of 255 on average, ${largest} at most`;
    $("compare-words").textContent = largest === 0 ? apart : `${apart}${psnr === undefined ? "." : `; PSNR ${psnr.toFixed(1)} dB.`}`;
  }
  function open(next) {
    tile = next;
    $("compare-title").textContent = tile.dataset.label;
    $("compare-prompt").textContent = `${tile.dataset.prompt} (seed ${tile.dataset.seed})`;
    const choices = [...$("compare-with").options];
    for (const option of choices) option.disabled = tile.dataset[option.value] === "";
    const possible = choices.filter((o) => !o.disabled);
    if (!possible.length) return;
    if ($("compare-with").selectedOptions[0]?.disabled ?? true) $("compare-with").value = possible[0].value;
    if (!dialog.open) { dialog.showModal(); move(50); slide.focus(); }
    for (const button of all("[data-go]", dialog)) button.disabled = !neighbour(button.dataset.go);
    show();
  }
  function neighbour(way) {
    const cell = tile.closest("td"), row = cell.parentElement;
    const seen = (c) => c.offsetParent !== null && c.querySelector(".tile");
    if (way === "left" || way === "right") {
      let next = cell;
      do next = way === "left" ? next.previousElementSibling : next.nextElementSibling; while (next && !seen(next));
      return next ? next.querySelector(".tile") : null;
    }
    let line = row;
    do line = way === "up" ? line.previousElementSibling : line.nextElementSibling; while (line && !seen(line.cells[cell.cellIndex]));
    return line ? line.cells[cell.cellIndex].querySelector(".tile") : null;
  }
  for (const button of all(".tile")) button.addEventListener("click", () => open(button));
  for (const button of all("[data-go]", dialog)) {
    button.addEventListener("click", () => { const next = neighbour(button.dataset.go); if (next) open(next); });
  }
  $("compare-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => tile?.focus());
  for (const radio of all('input[name="view"]', dialog)) {
    radio.addEventListener("change", () => { stage.dataset.view = radio.value; if (tile) show(); });
  }
  $("compare-with").addEventListener("change", show);
  $("gain").addEventListener("input", show);
  slide.addEventListener("input", () => move(Number(slide.value)));
  window.addEventListener("resize", () => { if (dialog.open) show(); });

  const frame = $("frame");
  const under = (event) => {
    const box = frame.getBoundingClientRect();
    move((100 * (event.clientX - box.left)) / box.width);
  };
  let dragged = false;
  frame.addEventListener("pointerdown", (event) => { dragged = true; frame.setPointerCapture(event.pointerId); under(event); slide.focus(); event.preventDefault(); });
  frame.addEventListener("pointermove", (event) => { if (dragged) under(event); });
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => { dragged = false; });
  // Arrows move the slider wherever the focus is, but not away from a control that uses them itself.
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
    if (!step || stage.dataset.view !== "slider" || event.target.closest("input, select")) return;
    move(Number(slide.value) + step);
    event.preventDefault();
  });
})();
