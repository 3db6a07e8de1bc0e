"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const places = [...document.querySelectorAll(".plot")];
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const positive = values => values.map(value => (value > 0 ? value : null));
  const short = value => (value >= 1e6 ? `${+(value / 1e6).toPrecision(3)}M` : value >= 1e4 ? `${+(value / 1e3).toPrecision(3)}k` : `${+value.toPrecision(3)}`);
  const shown = (plot, value) => (value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : 1 }));
  const parts = ["a", "b", "c", "d", "writes", "reads"];

  const line = (label, ink, values, more = {}) => ({ label, ink, values, ...more });
  const dashed = { dash: [5, 4], width: 1.25 };
  const dotted = { dash: [1.5, 3], width: 1.5 };
  const times = side => [
    line("P50", "b", positive(side.p50)), line("P99", side.ink, positive(side.p99), { width: 2 }),
    line("max", "e", positive(side.max)), line("P99 from sent", side.ink, positive(side.uncorrected_p99), dashed),
  ];
  const named = (series, scale = 1) => Object.entries(series).map(([name, values], place) =>
    line(name, name === "generator" ? "e" : parts[place % parts.length], values.map(value => value == null ? null : value * scale), name === "generator" ? dashed : {}));
  const plots = {
    throughput: () => ({ x: data.seconds, lines: [
      line("writes", "writes", data.writes.rate, { width: 2 }), line("reads", "reads", data.reads.rate, { width: 2 }),
      line("writes asked for", "writes", data.asked.writes, dashed), line("reads asked for", "reads", data.asked.reads, dashed),
    ], unit: "/s" }),
    writes: () => ({ x: data.seconds, lines: times({ ...data.writes, ink: "writes" }), log: true, unit: "ms" }),
    reads: () => ({ x: data.seconds, lines: times({ ...data.reads, ink: "reads" }), log: true, unit: "ms" }),
    spectrum: () => ({ x: data.spectrum.x, lines: [
      line("writes", "writes", data.spectrum.writes, { width: 2 }), line("reads", "reads", data.spectrum.reads, { width: 2 }),
      line("writes from sent", "writes", data.spectrum.writes_uncorrected, dashed), line("reads from sent", "reads", data.spectrum.reads_uncorrected, dashed),
      ...["writes", "reads"].filter(side => data.spectrum[`${side}_served`].some(value => value)).map(side => line(`${side} in the service`, side, data.spectrum[`${side}_served`], dotted)),
    ], log: true, percent: true, unit: "ms" }),
    trouble: () => ({ x: data.seconds, lines: [
      line("failed", "c", data.failed), line("sent late", "a", data.late), line("waiting", "e", data.waiting),
    ], unit: "requests" }),
    cores: () => ({ x: data.seconds, lines: named(data.cores), unit: "cores" }),
    memory: () => ({ x: data.seconds, lines: named(data.memory, 1e-6), unit: "MB" }),
  };

  const share = value => `${+(100 * (1 - 1 / value)).toFixed(5)} %`;
  function draw(place) {
    const name = place.dataset.plot;
    const plot = name.startsWith("metric:")
      ? { x: data.seconds, lines: [line(name.slice(7), "b", data.metrics[name.slice(7)])], unit: "" }
      : plots[name]();
    place.replaceChildren();
    const axis = { stroke: colour("soft"), grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid"), width: 1 }, font: "12px system-ui, sans-serif" };
    const options = {
      width: Math.max(place.clientWidth, 240), height: place.classList.contains("tall") ? 310 : 230,
      padding: [10, plot.percent ? 30 : 14, 0, 0], legend: { live: true }, cursor: { points: { size: 6 } },
      scales: { x: { time: false, ...(plot.percent ? { distr: 3, log: 10 } : {}) }, y: plot.log ? { distr: 3 } : { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, values: plot.percent ? (u, splits) => splits.map(value => (Number.isInteger(Math.log10(value)) ? share(value) : null)) : (u, splits) => splits.map(value => (Number.isInteger(value) ? `${value} s` : "")) },
        { ...axis, size: 58, values: (u, splits) => splits.map(value => (value == null ? null : plot.log && !Number.isInteger(+Math.log10(value).toFixed(9)) ? null : short(value))) },
      ],
      series: [
        { label: plot.percent ? "of requests" : "second", value: (u, value) => (value == null ? "–" : plot.percent ? share(value) : `${value}`) },
        ...plot.lines.map(each => ({ label: each.label, stroke: colour(each.ink), width: each.width || 1.5, dash: each.dash, spanGaps: false, value: shown, points: { show: plot.x.length < 3 } })),
      ],
    };
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${plot.lines.map(each => each.label).join(", ")} in ${plot.unit}`);
    place.drawn = new uPlot(options, [plot.x, ...plot.lines.map(each => each.values)], place);
  }

  const drawAll = () => places.forEach(draw);
  drawAll();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; requestAnimationFrame(drawAll); } });
  for (const query of ["print", "(prefers-color-scheme: dark)"]) matchMedia(query).addEventListener("change", drawAll);
})();
